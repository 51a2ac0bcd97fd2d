"""The manifest of a RayJob: it has what KubeRay requires, and calls the command as it is."""

from pathlib import Path
from typing import Any

import ray
import typer
import yaml

from ragmesh_client.cli.app import app

MANIFEST = Path(__file__).parents[1] / "deploy" / "ray" / "rayjob.yaml"


def job() -> dict[str, Any]:
    """The manifest."""
    found: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    return found


def test_it_has_what_kuberay_requires() -> None:
    """A kind, an entrypoint, a cluster of our Ray's version; every group has a template with one container."""
    spec = job()["spec"]
    cluster = spec["rayClusterSpec"]
    assert (job()["apiVersion"], job()["kind"]) == ("ray.io/v1", "RayJob")
    assert (cluster["rayVersion"], spec["shutdownAfterJobFinishes"]) == (ray.__version__, True)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert isinstance(group["rayStartParams"], dict)
        (container,) = group["template"]["spec"]["containers"]
        assert container["name"]
        assert container["image"] == "${RAGMESH_IMAGE}"
        assert {each["name"] for each in container["env"]} >= {"RAGMESH_TARGET", "RAGMESH_TOKEN"}
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_its_entrypoint_is_a_command_of_ours() -> None:
    """`ragmesh ingest` knows every option that it gives."""
    words = job()["spec"]["entrypoint"].split()
    assert words[:2] == ["ragmesh", "ingest"]
    command: Any = typer.main.get_command(app)
    known = {option for parameter in command.commands["ingest"].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
