"""Reading the user's pip configuration, through pip itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fatwheel.errors import FetchError
from fatwheel.toolchain.pipconfig import interpret, merge, read_pip_config


@pytest.fixture
def pip_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own configuration file for pip, and no PIP_* variable but the one that names it."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    # An empty home and XDG folder: the user's own files must not show in a test.
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.setenv(name, str(tmp_path))
    path = tmp_path / "own.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    return path


def test_files_and_variables_count_as_they_do_for_pip(
    pip_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_conf.write_text(
        "[global]\n"
        "index-url = https://first.invalid/simple\n"
        "extra-index-url =\n"
        "    https://second.invalid/simple\n"
        "    https://third.invalid/simple\n"
        "find-links = /srv/wheels ~/wheels\n"
        "cert = /etc/ca.pem\n"
        "trusted-host = first.invalid\n"
        "timeout = 30\n"
        "[download]\n"
        "retries = 9\n"
        "[install]\n"
        "proxy = http://not-for-downloads.invalid\n"
    )
    monkeypatch.setenv("PIP_CERT", "/etc/other.pem")
    monkeypatch.setenv("PIP_PROXY", "proxy.invalid:3128")

    config = read_pip_config()

    assert config.indexes == (
        "https://first.invalid/simple",
        "https://second.invalid/simple",
        "https://third.invalid/simple",
    )
    assert config.find_links == ("/srv/wheels", os.path.expanduser("~/wheels"))
    assert config.cert == "/etc/other.pem", "a variable overrides the file"
    assert config.trusted_hosts == ("first.invalid",)
    assert config.timeout == 30.0
    assert config.retries == 9
    assert config.proxy == "http://proxy.invalid:3128"


def test_a_broken_configuration_file_is_told_in_pips_words(pip_conf: Path) -> None:
    pip_conf.write_text("no section\n")
    with pytest.raises(FetchError) as caught:
        read_pip_config()
    assert "pip cannot read its configuration" in str(caught.value)
    assert "no section" in str(caught.value).lower()


def test_without_any_configuration_the_default_index_is_asked() -> None:
    config = interpret({})
    assert len(config.indexes) == 1
    assert config.indexes[0].startswith("https://")
    assert (config.timeout, config.retries) == (15.0, 5), "pip's defaults (pip help install)"


def test_no_index_leaves_the_find_links() -> None:
    config = interpret({"no-index": "true", "index-url": "https://a/", "find-links": "/w"})
    assert config.indexes == ()
    assert config.find_links == ("/w",)
    assert interpret({"no-index": "false", "index-url": "https://a/"}).indexes == ("https://a/",)


def test_lines_that_are_not_options_are_passed_over() -> None:
    listing = (
        "WARNING: something\nglobal.index-url='https://u:p=q@a/'\ninstall.cert='x'\n"
        ":env:.timeout='7'\nglobal.timeout='5'\n:env:.find-links=''\nglobal.find-links='/w'\n"
    )
    assert merge(listing) == {
        "index-url": "https://u:p=q@a/",
        "timeout": "7",
        "find-links": "/w",
    }


def test_a_timeout_that_is_no_number() -> None:
    with pytest.raises(FetchError, match="timeout is 'soon'"):
        interpret({"timeout": "soon"})
