# A stand-in for the parts of AWS's SDK that the functions use. Secrets live in a file,
# calls are written to another: one JSON object a line.
import json, os


class ClientError(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class ResourceNotFoundException(ClientError):
    pass


def log(**call):
    with open(os.environ["CALLS"], "a") as f:
        f.write(json.dumps(call) + "\n")


class Exceptions:
    ClientError = ClientError
    ResourceNotFoundException = ResourceNotFoundException


class Secrets:
    exceptions = Exceptions

    def _load(self):
        with open(os.environ["SECRETS"]) as f:
            return json.load(f)

    def _save(self, state):
        with open(os.environ["SECRETS"], "w") as f:
            json.dump(state, f)

    def describe_secret(self, SecretId):
        return {"VersionIdsToStages": self._load()[SecretId]["stages"]}

    def get_secret_value(self, SecretId, VersionStage, VersionId=None):
        secret = self._load()[SecretId]
        for version, stages in secret["stages"].items():
            if VersionStage in stages and VersionId in (None, version) and version in secret["values"]:
                return {"SecretString": secret["values"][version]}
        raise ResourceNotFoundException("ResourceNotFoundException")

    def put_secret_value(self, SecretId, ClientRequestToken, SecretString, VersionStages):
        state = self._load()
        state[SecretId]["values"][ClientRequestToken] = SecretString
        state[SecretId]["stages"][ClientRequestToken] = VersionStages
        self._save(state)

    def update_secret_version_stage(self, SecretId, VersionStage, MoveToVersionId, RemoveFromVersionId):
        state = self._load()
        stages = state[SecretId]["stages"]
        stages[RemoveFromVersionId].remove(VersionStage)
        stages[MoveToVersionId].append(VersionStage)
        self._save(state)


class Data:
    exceptions = Exceptions

    def __init__(self):
        self.asleep = int(os.environ.get("ASLEEP", "0"))

    def _call(self, name, **arguments):
        log(call=name, **arguments)
        if self.asleep:
            self.asleep -= 1
            raise ClientError("DatabaseResumingException")
        if "refuse me" in arguments.get("sql", ""):
            raise ClientError("BadRequestException")

    def begin_transaction(self, **arguments):
        self._call("begin", **arguments)
        return {"transactionId": "tx"}

    def execute_statement(self, **arguments):
        self._call("execute", **arguments)

    def commit_transaction(self, **arguments):
        self._call("commit", **arguments)

    def rollback_transaction(self, **arguments):
        self._call("rollback", **arguments)


def client(name):
    return {"secretsmanager": Secrets, "rds-data": Data}[name]()
