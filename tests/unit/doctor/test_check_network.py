"""Proxies, index and other servers, as made-up facts."""

from __future__ import annotations

from dataclasses import replace

from fatwheel.doctor.facts import FileHost, IndexFacts, ProxyFacts, Silence, Trouble
from fatwheel.doctor.network import check_index, check_places, check_proxy

from ...helpers.workstations import (
    BROKEN,
    HEALTHY,
    IN_CONTAINERS,
    LINUX_ENGINE,
    SERVER,
    commands,
    facts,
)

HTTPS = ("https_proxy", "http://proxy.example:3128")
HTTP = ("http_proxy", "http://proxy.example:3128")


def test_no_proxy_is_fine() -> None:
    assert check_proxy(HEALTHY).found == "none is set"


def test_a_proxy_for_all_is_fine_and_shown() -> None:
    found = check_proxy(facts(proxies=ProxyFacts((HTTPS, HTTP), "http://pip.example", ())))
    assert found.status == "ok"
    assert "https_proxy=http://proxy.example:3128" in found.found
    assert "pip's proxy http://pip.example" in found.found


def test_half_a_proxy_is_a_warning() -> None:
    found = check_proxy(facts(proxies=ProxyFacts((HTTP,), "", ())))
    assert found.status == "warning"
    assert commands(found) == ['export HTTPS_PROXY="${HTTP_PROXY:-$http_proxy}"']


def test_a_fix_repeats_no_password() -> None:
    assert commands(check_proxy(BROKEN)) == ["setx HTTPS_PROXY %HTTP_PROXY%"]


def test_an_engine_behind_the_same_firewall_needs_a_proxy_too() -> None:
    behind = facts(IN_CONTAINERS, proxies=ProxyFacts((HTTPS,), "", ()))
    found = check_proxy(behind)
    assert found.status == "warning"
    assert commands(found) == ["sudo systemctl restart docker"]
    assert "/etc/docker/daemon.json" in found.fixes[0].say
    told = replace(LINUX_ENGINE, proxies=("https=http://proxy.example:3128",))
    assert check_proxy(replace(behind, container_engine=told)).status == "ok"


def test_docker_desktop_has_a_page_for_it() -> None:
    desktop = replace(LINUX_ENGINE, facts=replace(LINUX_ENGINE.facts, system="Docker Desktop"))
    found = check_proxy(
        facts(
            IN_CONTAINERS, container_engine=desktop, proxies=ProxyFacts((), "http://p.example", ())
        )
    )
    assert "Proxies" in found.fixes[0].say


def test_windows_restarts_its_service() -> None:
    found = check_proxy(facts(SERVER, proxies=ProxyFacts((HTTPS,), "", ())))
    assert commands(found) == ["sc.exe stop docker & timeout /t 5 & sc.exe start docker"]


def test_a_pip_that_does_not_answer() -> None:
    assert check_proxy(facts(proxies=Silence("no answer in 20 s"))).status == "warning"


def test_an_index_that_answers() -> None:
    found = check_index(HEALTHY)
    assert (found.status, found.found) == ("ok", "https://index.example answered in 0.4 s")


def test_one_of_several_places_is_enough() -> None:
    sources = (("/opt/wheels", "not listed here"), ("https://index.example", ""))
    found = check_index(facts(index=IndexFacts("x", sources, 0.1, None)))
    assert found.status == "ok"
    assert found.found.endswith("; 1 other place not")


def test_a_slow_index_is_a_warning() -> None:
    found = check_index(facts(index=IndexFacts("x", (("https://i.example", ""),), 6.0, None)))
    assert found.status == "warning"


def test_no_place_has_the_file() -> None:
    found = check_index(BROKEN)
    assert found.status == "wrong"
    assert "no ninja-1.0-py3-none-any.whl" in found.found
    assert "no answer in time" in found.found


def test_a_hanging_index_and_a_broken_configuration() -> None:
    assert check_index(facts(index=Silence("no answer in 30 s"))).status == "wrong"
    broken = Trouble("pip cannot read its configuration", hint="see pip.conf")
    found = check_index(facts(index=broken))
    assert found.status == "wrong"
    assert found.fixes[0].say == "see pip.conf"


def test_a_toolchain_that_needs_no_index() -> None:
    assert check_index(facts(index=IndexFacts("", (), 0.0, None))).status == "not applicable"


def test_other_servers() -> None:
    assert check_places(HEALTHY).status == "not applicable"
    good = check_places(facts(places=(FileHost("a.example", 5, ""), FileHost("b.example", 5, ""))))
    assert (good.status, good.found) == ("ok", "a.example, b.example answered")
    found = check_places(BROKEN)
    assert found.status == "wrong"
    assert "files.example: no connection: refused; other.example answered" in found.found
    assert "953.7 MiB" in found.why, "the files of the host that does not answer, 1 GB"


def test_files_that_are_in_the_images_need_no_server() -> None:
    places = (FileHost("a.example", 5, "it says 403"),)
    assert check_places(facts(IN_CONTAINERS, places=places)).status == "not applicable"
    assert check_places(facts(places=places)).status == "wrong"


def test_the_size_of_files_may_be_unknown() -> None:
    found = check_places(facts(places=(FileHost("a.example", 0, "it says 403"),)))
    assert found.why.startswith("some files")
