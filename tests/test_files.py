import errno
import os

import pytest

from miyagi.errors import UserError
from miyagi.files import digest, file_digest, json_text, replacing, write_json


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == json_text({"old": 1})
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_is_the_users_to_mend(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*out\.bin: No space left on device"),
        replacing(tmp_path / "out.bin") as temporary,
    ):
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "runs" / "a.json", {})


def test_digests():
    assert digest({"b": 1, "a": [1.5, None]}) == digest({"a": [1.5, None], "b": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest(1)) == 16


def test_file_digest_is_the_plain_md5(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x", "md5") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()
