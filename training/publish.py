"""python -m training.publish recipe.yaml [--push org/name]: makes a finished run a model on the Hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from training.evaluation.results import Results
from training.release.build import build, check_isolated, finished_run, raise_failed_checks
from training.release.checks import failed_checks, unlisted_data_licences
from training.release.hub import Upload, check_token, push
from training.run.command import print_result, quiet_hosts, run_command
from training.run.config import PublishConfig, read
from training.run.lock import hold
from turkish_clip.hosts import import_hosts

log = logging.getLogger("training")


def main(argv: list[str]) -> dict[str, Any]:
    """Builds and checks the folder, and uploads it if asked; returns a summary."""
    config = read(PublishConfig, argv)
    hold(config.folder)
    record = finished_run(config.folder)
    results = Results.read(config.folder)
    raise_failed_checks(failed_checks(config, record, results))
    for line in unlisted_data_licences(config, record):
        log.warning(line)
    quiet_hosts()
    if config.push:
        check_token(config.push)

    import_hosts()
    build(config, record, results)
    checks = check_isolated(config.output, record, config.folder)
    raise_failed_checks([f"{check['name']}: {check['found']}" for check in checks if not check["passed"]])

    files = {str(path.relative_to(config.output)): path.stat().st_size for path in files_of(config.output)}
    summary: dict[str, Any] = {"folder": str(config.output), "repository": config.repository, "files": files}
    summary |= {"checks": checks, "uploaded": None}
    if config.push:
        summary["uploaded"] = push(config.output, _upload_of(config, results))
    _show(summary, config)
    return summary


def files_of(folder: Path) -> list[Path]:
    """Returns the files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _upload_of(config: PublishConfig, results: Results) -> Upload:
    """Returns the destination and the options of the upload."""
    return Upload(
        config.push,
        private=config.private,
        revision=config.revision,
        create_pr=config.create_pr,
        message=f"Weights {results.weights_sha256[:12]}",
    )


def _show(summary: dict[str, Any], config: PublishConfig) -> None:
    """Prints the checks and the files, for people or as one JSON object."""
    if config.json:
        print_result(summary, as_json=True)
        return
    for check in summary["checks"]:
        print(f"ok    {check['name']:<16}{check['found']}")
    print()
    for name, size in summary["files"].items():
        print(f"{size / 1e6:>10.3f} MB  {name}")
    print(f"{sum(summary['files'].values()) / 1e6:>10.3f} MB  in {summary['folder']}\n")
    if summary["uploaded"]:
        print(f"uploaded: {summary['uploaded']}")
    else:
        print(f"Nothing was uploaded. Read {config.output / 'README.md'}, then add --push {config.repository}, or:")
        print(f"hf upload {config.repository} {config.output}")


if __name__ == "__main__":
    run_command(main)
