from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from onesearch.errors import UsageError
from onesearch.shoppers.lmdb_store import LmdbStates
from onesearch.shoppers.opening import open_states


@pytest.mark.parametrize("form", ["lmdb:{}", "lmdb://{}", "{}"])
def test_a_folder(tmp_path: Path, form: str) -> None:
    with open_states(form.format(tmp_path / "s")) as store:
        assert isinstance(store, LmdbStates)
        assert (tmp_path / "s" / "data.mdb").is_file()
        assert store.url == f"lmdb:{tmp_path / 's'}"


def test_a_folder_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_states("states").close()
    open_states("lmdb:more/states").close()
    assert sorted(path.name for path in tmp_path.rglob("data.mdb")) == ["data.mdb"] * 2


@pytest.mark.parametrize("url", ["", "lmdb:", "lmdb://", "postgres://host/db", "lmbd:states", "http:x"])
def test_what_fits_is_said(url: str) -> None:
    with pytest.raises(UsageError, match="give lmdb:PATH, a path, or redis://HOST:PORT/DATABASE"):
        open_states(url)


def test_one_kind_of_store_does_not_need_the_other(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['redis'] = None\nfrom onesearch.shoppers.opening import open_states\n"
        f"open_states({str(tmp_path / 's')!r}).close()\nassert 'polars' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
