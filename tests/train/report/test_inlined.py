"""What the page holds besides its data: the library as published, its licences, and a policy that fits the page."""

import base64
import hashlib
import json
from pathlib import Path

from tests.helpers.report_pages import Elements, data_of
from tests.helpers.report_runs import make_run
from train.report.inlined import ASSETS, LIBRARY, as_script_data, scripts
from train.report.page import render

HOSTILE = "</script><script>alert(1)</script><!--<script>\u2028\u2029&amp;\x00]]>"


def test_the_library_is_the_published_one() -> None:
    known = json.loads((ASSETS / "versions.json").read_text("utf-8"))[LIBRARY]
    content = (ASSETS / LIBRARY).read_bytes()
    assert hashlib.sha256(content).hexdigest() == known["sha256"]
    assert f'version="{known["version"]}"'.encode() in content


def test_the_licences_of_all_that_it_includes_are_there() -> None:
    texts = {path.name: path.read_text("utf-8") for path in (ASSETS / "licenses").iterdir()}
    assert "Apache License" in texts["ECHARTS-LICENSE.txt"]
    assert "Apache Software Foundation" in texts["ECHARTS-NOTICE.txt"]
    assert (
        "Baidu" in texts["ZRENDER-LICENSE.txt"] and "BSD 3-Clause" in texts["ZRENDER-LICENSE.txt"]
    )
    assert (
        "Microsoft" in texts["TSLIB-NOTICE.txt"]
        and "Permission to use" in texts["TSLIB-LICENSE.txt"]
    )
    assert "Michael Bostock" in texts["LICENSE-d3"] or "Mike Bostock" in texts["LICENSE-d3"]


def test_every_asset_is_used() -> None:
    used = set(scripts()) | {(ASSETS / "report.css").read_text("utf-8")}
    own = [path for path in ASSETS.iterdir() if path.suffix in (".js", ".css")]
    assert [path.name for path in own if path.read_text("utf-8") not in used] == []


def test_own_scripts_are_as_short_as_other_files() -> None:
    own = [path for path in ASSETS.glob("*.js") if path.name != LIBRARY]
    assert len(own) > 5
    for path in [*own, ASSETS / "report.css"]:
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 400, path
        assert text.isascii() and "</script" not in text and "<!--" not in text, path


def test_own_scripts_never_make_markup_of_text() -> None:
    for path in ASSETS.glob("*.js"):
        if path.name != LIBRARY:
            text = path.read_text("utf-8")
            for word in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
            ):
                assert word not in text, f"{path.name}: {word}"


def test_data_cannot_leave_their_element() -> None:
    values = {"text": HOSTILE, HOSTILE: [1, None]}
    text = as_script_data(values)
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == values


def test_the_policy_allows_the_scripts_of_the_page_and_nothing_else(tmp_path: Path) -> None:
    page = render([make_run(tmp_path / "run", steps=60, text="</script><script>")])
    elements = Elements(page)
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes in elements.found
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"] and "connect-src" not in rules
    assert rules["base-uri"] == rules["form-action"] == ["'none'"]

    def hashes(tag: str) -> list[str]:
        return [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for found, attributes, text in elements.texts
            if found == tag and attributes.get("type") != "application/json"
        ]

    assert rules["script-src"] == hashes("script") and len(hashes("script")) == len(scripts())
    assert rules["style-src"] == hashes("style") and len(hashes("style")) == 1
    # No element has a handler, a style or an address of its own.
    names = {name for _, attributes in elements.found for name in attributes}
    assert names == {"lang", "charset", "name", "content", "http-equiv", "id", "type"}
    assert data_of(page)["runs"][0]["message"].endswith("</script><script>")


def test_only_the_served_page_may_ask_its_server(tmp_path: Path) -> None:
    page = render([make_run(tmp_path / "run", steps=60)], is_live=True)
    assert "connect-src &#x27;self&#x27;" in page
    assert data_of(page)["live"] is True
