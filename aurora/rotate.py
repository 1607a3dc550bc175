# Single-user rotation over the RDS Data API. The database is given a SCRAM verifier,
# so no statement and no log ever holds the password.
import base64, hashlib, hmac, json, os, secrets, time
import boto3

store, sql = boto3.client("secretsmanager"), boto3.client("rds-data")


def verifier(password, salt=None, rounds=4096):
    salt = salt or secrets.token_bytes(16)
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(key, b"Client Key", "sha256")).digest()
    server = hmac.digest(key, b"Server Key", "sha256")
    salt, stored, server = (base64.b64encode(x).decode() for x in (salt, stored, server))
    return f"SCRAM-SHA-256${rounds}:{salt}${stored}:{server}"


def read(arn, **version):
    return json.loads(store.get_secret_value(SecretId=arn, **version)["SecretString"])


def run(statement):
    for attempt in range(20):
        try:
            return sql.execute_statement(resourceArn=os.environ["CLUSTER"], secretArn=os.environ["ADMIN"],
                                         database=os.environ["DATABASE"], sql=statement)
        except sql.exceptions.ClientError as e:
            if e.response["Error"]["Code"] != "DatabaseResumingException" or attempt == 19:
                raise
            time.sleep(5)


def handler(event, context):
    arn, token, step = event["SecretId"], event["ClientRequestToken"], event["Step"]
    stages = store.describe_secret(SecretId=arn)["VersionIdsToStages"]
    if "AWSCURRENT" in stages.get(token, []):
        return
    if "AWSPENDING" not in stages.get(token, []):
        raise ValueError("the version to rotate to is not AWSPENDING")
    if step == "createSecret":
        try:
            read(arn, VersionId=token, VersionStage="AWSPENDING")
        except store.exceptions.ResourceNotFoundException:
            value = {**read(arn, VersionStage="AWSCURRENT"), "password": secrets.token_urlsafe(30)}
            store.put_secret_value(SecretId=arn, ClientRequestToken=token, SecretString=json.dumps(value), VersionStages=["AWSPENDING"])
    elif step == "setSecret":
        value = read(arn, VersionId=token, VersionStage="AWSPENDING")
        user = value["username"]
        if not user.replace("_", "a").isalnum() or not user.isascii():
            raise ValueError("the secret's username is not one of this stack's")
        run(f"""do $$ begin if not exists (select from pg_roles where rolname = '{user}') then create role "{user}" login; end if; end $$""")
        run(f"""alter role "{user}" password '{verifier(value["password"])}'""")
    elif step == "finishSecret":
        current = next(v for v, s in stages.items() if "AWSCURRENT" in s)
        store.update_secret_version_stage(SecretId=arn, VersionStage="AWSCURRENT", MoveToVersionId=token, RemoveFromVersionId=current)
