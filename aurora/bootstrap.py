# Runs the statements of the custom resource over the RDS Data API, all or nothing.
import json, os, time, urllib.request
import boto3

sql = boto3.client("rds-data")
where = {"resourceArn": os.environ["CLUSTER"], "secretArn": os.environ["ADMIN"]}


def begin():
    for attempt in range(20):
        try:
            return sql.begin_transaction(database=os.environ["DATABASE"], **where)["transactionId"]
        except sql.exceptions.ClientError as e:
            if e.response["Error"]["Code"] != "DatabaseResumingException" or attempt == 19:
                raise
            time.sleep(5)


def run(statements):
    transaction = begin()
    try:
        for statement in statements:
            sql.execute_statement(transactionId=transaction, database=os.environ["DATABASE"], sql=statement, **where)
    except Exception:
        sql.rollback_transaction(transactionId=transaction, **where)
        raise
    sql.commit_transaction(transactionId=transaction, **where)


def handler(event, context):
    status, reason = "SUCCESS", "done"
    try:
        if event["RequestType"] != "Delete":  # users and their data outlive the resource
            run(event["ResourceProperties"]["Statements"])
    except Exception as e:
        status, reason = "FAILED", str(e)[:1000]
    answer = {k: event[k] for k in ("StackId", "RequestId", "LogicalResourceId")}
    answer.update(Status=status, Reason=reason, PhysicalResourceId="bootstrap")
    urllib.request.urlopen(urllib.request.Request(event["ResponseURL"], json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT"), timeout=30)
