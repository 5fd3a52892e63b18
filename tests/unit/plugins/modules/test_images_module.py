# SPDX-License-Identifier: GPL-3.0-or-later
"""What the images module reads from an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.berth.odoo.plugins.module_utils._docker_api import DockerError
from ansible_collections.berth.odoo.plugins.modules import images


class Engine:
    """Answers GET requests from a dictionary; an exception in it is raised."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def get(self, path: str, **_query: Any) -> Any:
        answer = self.answers[path]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_an_engine_is_described_by_its_layers_and_its_disks(tmp_path: Path) -> None:
    engine = Engine(
        {
            "/images/sha256:1/json": {"RootFS": {"Type": "layers", "Layers": ["sha256:a", "sha256:b"]}},
            "/images/sha256:2/json": DockerError(404, "removed in between"),
            "/images/sha256:3/json": {"RootFS": {"Type": "layers"}},
            "/info": {"DockerRootDir": str(tmp_path), "DriverStatus": [["Backing Filesystem", "extfs"]]},
        }
    )
    described = images.describe_engine(engine, [{"Id": f"sha256:{number}"} for number in (1, 2, 3)], str(tmp_path))
    assert described["layers"] == [["sha256:a", "sha256:b"], []]
    assert [disk[0] for disk in described["disks"]] == [str(tmp_path), str(tmp_path)]
    assert described["disks"][0][1] == tmp_path.stat().st_dev
    assert described["disks"][0][2] > 0


def test_an_engine_that_numbers_images_differently_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    engine = Engine({"/info": {"DockerRootDir": "/x", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}})
    with pytest.raises(images.ForeignStoreError, match='"containerd-snapshotter": false'):
        images.describe_engine(engine, [], str(tmp_path))


def test_other_errors_of_the_engine_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(DockerError):
        images.describe_engine(Engine({"/images/x/json": DockerError(500, "broken")}), [{"Id": "x"}], str(tmp_path))


class Store(Engine):
    """An engine that also removes images, as far as no container has them."""

    def __init__(self, answers: dict[str, Any], busy: str) -> None:
        super().__init__(answers)
        self.busy, self.deleted = busy, list[str]()

    def delete(self, path: str) -> None:
        if path.endswith(self.busy):
            raise DockerError(409, "conflict: unable to remove repository reference")
        self.deleted.append(path)


def old_images() -> list[dict[str, Any]]:
    return [
        {"Id": f"sha256:{number}", "RepoTags": [f"berth/odoo:{number}"], "Created": 1000 - number, "Labels": {"berth.inputs": "x"}}
        for number in range(7)
    ]


@pytest.mark.parametrize(("check_mode", "deleted"), [(False, ["/images/berth/odoo:6"]), (True, [])])
def test_replaced_images_go_and_used_ones_stay(check_mode: bool, deleted: list[str]) -> None:
    engine = Store({"/containers/json": [{"ImageID": "sha256:4"}]}, busy=":5")
    removed = images.remove_superseded(engine, old_images(), {"sha256:3"}, check_mode=check_mode)  # type: ignore[arg-type]
    assert engine.deleted == deleted
    assert removed == (["berth/odoo:5", "berth/odoo:6"] if check_mode else ["berth/odoo:6"])


def test_without_anything_to_remove_nothing_is_asked() -> None:
    assert images.remove_superseded(Engine({}), old_images()[:3], set(), check_mode=False) == []  # type: ignore[arg-type]
