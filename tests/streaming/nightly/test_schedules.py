"""The schedules run commands that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from onesearch.cli.main import load_command

DEPLOY = Path(__file__).parents[3] / "deploy"


def _known(options: list[str]) -> list[str]:
    known = {name for parameter in load_command("nightly").params for name in parameter.opts}
    return [option for option in options if option not in known]


def test_the_cron_job() -> None:
    text = (DEPLOY / "kubernetes" / "nightly.yaml").read_text(encoding="utf-8")
    [job] = yaml.safe_load_all(text)
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert len(spec["schedule"].split()) == 5 and spec["concurrencyPolicy"] == "Forbid"
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "OnFailure"
    [container] = pod["containers"]
    assert container["args"][0] == "nightly"
    assert _known([argument.split("=")[0] for argument in container["args"][1:]]) == []
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_the_line_for_cron() -> None:
    lines = (DEPLOY / "nightly.cron").read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if "onesearch nightly" in line]
    assert re.match(r"(\S+ ){5}cd ", line)
    assert _known(re.findall(r"--[a-z-]+", line)) == []
