"""The GraphQL operations that the fake backend knows, one function each, under the name that the client calls it by."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from tests.wandb.records import Sweep

if TYPE_CHECKING:
    from tests.wandb.fake_backend import FakeBackend

ENTITY = "somebody"
NOW = "2026-01-01T00:00:00Z"

Answer = dict[str, Any]


def operation(query: str) -> str:
    """The name of the operation of a GraphQL document."""
    found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
    return found[1] if found else ""


def opaque(kind: str, name: str) -> str:
    """An id as the server makes them."""
    return base64.b64encode(f"{kind}:{name}".encode()).decode()


def project(name: str) -> Answer:
    """What the API tells of a project."""
    return {
        "id": opaque("Project", name),
        "internalId": opaque("ProjectInternalId", name),
        "name": name,
        "entityName": ENTITY,
        "entity": {"id": opaque("Entity", ENTITY), "name": ENTITY},
    }


def viewer(backend: FakeBackend, given: Answer) -> Answer:
    """Who is logged in."""
    user = {
        "id": opaque("User", ENTITY),
        "entity": ENTITY,
        "username": ENTITY,
        "name": ENTITY,
        "email": "",
        "flags": "{}",
    }
    return {"viewer": {**user, "admin": False, "teams": {"edges": []}, "apiKeys": None, "photoUrl": None}}


def server_features(backend: FakeBackend, given: Answer) -> Answer:
    """No optional feature."""
    return {"serverInfo": {"features": []}}


def organization(backend: FakeBackend, given: Answer) -> Answer:
    """The entity is a person's own, of no organization."""
    return {"entity": {"organization": None}}


def upsert_bucket(backend: FakeBackend, given: Answer) -> Answer:
    """A run begins, or tells more about itself."""
    run = backend.run(given["name"])
    inserted = not run.project
    run.project = given.get("project") or run.project
    run.name = given.get("displayName") or run.name or run.id
    run.group = given.get("groupName") or run.group
    run.job_type = given.get("jobType") or run.job_type
    run.sweep = given.get("sweep") or run.sweep
    for key, entry in json.loads(given.get("config") or "{}").items():
        run.config[key] = entry["value"]
    bucket = {
        "id": opaque("Run", run.id),
        "name": run.id,
        "displayName": run.name,
        "description": None,
        "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
        "sweepName": run.sweep,
        "historyLineCount": len(run.history),
        "project": project(run.project),
    }
    return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}


def resume_status(backend: FakeBackend, given: Answer) -> Answer:
    """Nothing to resume."""
    return {
        "model": {"id": opaque("Project", ""), "name": given["project"], "entity": {"name": ENTITY}, "bucket": None}
    }


def stopped_status(backend: FakeBackend, given: Answer) -> Answer:
    """Nobody presses the stop button."""
    return {"project": {"run": {"stopped": False}}}


def create_run_files(backend: FakeBackend, given: Answer) -> Answer:
    """Where to upload files to."""
    id = given["run"]
    files = [{"name": name, "uploadUrl": f"{backend.url}/upload/{id}/{name}"} for name in given["files"]]
    return {"createRunFiles": {"runID": id, "uploadHeaders": [], "files": files}}


def mark_uploaded(backend: FakeBackend, given: Answer) -> Answer:
    """Files have arrived."""
    return {"markRunFilesUploaded": {"success": True}}


def upsert_sweep(backend: FakeBackend, given: Answer) -> Answer:
    """A sweep over a grid is made, the only kind that the fake can hand out."""
    config = yaml.safe_load(given["config"])
    if config["method"] != "grid":
        raise ValueError(f"the fake can hand out a grid, not {config['method']}")
    axes = {key: axis["values"] if "values" in axis else [axis["value"]] for key, axis in config["parameters"].items()}
    left = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    id = f"sweep{len(backend.sweeps)}"
    backend.sweeps[id] = Sweep(id, given["projectName"], config, left)
    return {
        "upsertSweep": {"sweep": {"name": id, "project": project(given["projectName"])}, "configValidationWarnings": []}
    }


def sweep_with_runs(backend: FakeBackend, given: Answer) -> Answer:
    """A sweep as an agent asks for it."""
    sweep = backend.sweeps[given["sweep"]]
    about = {
        "id": opaque("Sweep", sweep.id),
        "name": sweep.id,
        "method": sweep.config["method"],
        "state": "RUNNING",
        "config": yaml.safe_dump(sweep.config),
        "createdAt": NOW,
        "heartbeatAt": NOW,
        "updatedAt": NOW,
        "runs": {"edges": []},
    }
    return {"project": {**project(sweep.project), "sweep": about}}


def sweep_state(backend: FakeBackend, given: Answer) -> Answer:
    """Whether a sweep goes on."""
    return {"project": {"sweep": {"state": "RUNNING"}}}


def create_agent(backend: FakeBackend, given: Answer) -> Answer:
    """An agent reports for duty; its id names the sweep."""
    return {"createAgent": {"agent": {"id": given["sweep"]}}}


def heartbeat(backend: FakeBackend, given: Answer) -> Answer:
    """An agent tells which runs go on; an idle one gets the next of the grid, or leave to go."""
    sweep, commands = backend.sweeps[given["id"]], []
    if not json.loads(given["runState"]):
        commands.append({"id": "1", "type": "exit"})
        if sweep.left:
            arguments = {key: {"value": value} for key, value in sweep.left.pop(0).items()}
            id = f"{sweep.id}run{sweep.handed_out}"
            sweep.handed_out += 1
            program = sweep.config["program"]
            commands = [{"id": "1", "type": "run", "run_id": id, "program": program, "args": arguments}]
    return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}


def projects(backend: FakeBackend, given: Answer) -> Answer:
    """The projects that hold runs."""
    names = sorted({run.project for run in backend.runs.values()})
    edges = [
        {
            "cursor": name,
            "node": {"__typename": "Project", **project(name), "createdAt": NOW, "isBenchmark": False, "user": None},
        }
        for name in names
    ]
    return {"models": {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": edges}}


def project_id(backend: FakeBackend, given: Answer) -> Answer:
    """The project that a set of runs is in, if it holds any."""
    known = any(run.project == given["projectName"] for run in backend.runs.values())
    return {"project": project(given["projectName"]) if known and given["entityName"] == ENTITY else None}


def upsert_view(backend: FakeBackend, given: Answer) -> Answer:
    """A report is saved."""
    backend.views.append(given)
    view = {
        "id": opaque("View", str(len(backend.views))),
        "type": given["type"],
        "name": given["name"],
        "displayName": given["displayName"],
        "description": given["description"],
        "project": project(given["projectName"]),
        "spec": given["spec"],
        "updatedAt": NOW,
    }
    return {"upsertView": {"view": view, "inserted": True}}


OPERATIONS: dict[str, Callable[[FakeBackend, Answer], Answer]] = {
    "Viewer": viewer,
    "GetDefaultEntity": viewer,
    "ServerFeaturesQuery": server_features,
    "OrganizationCoreWeaveOrganizationID": organization,
    "UpsertBucket": upsert_bucket,
    "RunResumeStatus": resume_status,
    "RunStoppedStatus": stopped_status,
    "CreateRunFiles": create_run_files,
    "MarkRunFilesUploaded": mark_uploaded,
    "UpsertSweep": upsert_sweep,
    "SweepWithRuns": sweep_with_runs,
    "GetSweepState": sweep_state,
    "CreateAgent": create_agent,
    "Heartbeat": heartbeat,
    "GetProjects": projects,
    "ProjectInternalId": project_id,
    "upsertView": upsert_view,
}
