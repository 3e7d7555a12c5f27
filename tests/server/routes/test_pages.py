"""Pages for a browser: they load nothing from elsewhere, need no key, and every address in them answers."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from support.service import check_problem


class Addresses(HTMLParser):
    """A parser that collects what a page links to and loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.found += [given[n] for n in ("href", "src") if n in given]
        self.inline += [n for n in given if n == "style" or n.startswith("on")]
        if (tag == "script" and "src" not in given) or tag == "style":
            self.inline.append(tag)


@pytest.mark.parametrize(("path", "n_addresses"), [("/", 5), ("/docs", 3)])
def test_a_page_is_whole(service, path, n_addresses):
    answer = service.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    page = Addresses(answer.text)
    assert len(page.found) == n_addresses
    assert page.inline == [], "the Content-Security-Policy would refuse it"
    for address in page.found:
        assert not re.match(r"[a-z]+:|//", address), f"{address} is not of the service"
        assert service.get(f"/{address}").status_code == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "$" not in answer.text


def test_pages_need_no_key_and_data_does(serving_of, bank_folder, tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    with serving_of(str(bank_folder), "--keys", str(keys), ready=False) as served:
        for path in ("/", "/docs", "/openapi.json", "/static/style.css"):
            assert served.get(path).status_code == 200
        check_problem(served.get("/v1/banks"), 401, "unauthorized")


def test_only_files_of_the_pages_are_given(service):
    check_problem(service.get("/static/app.py"), 404, "not-found")
    check_problem(service.get("/static/..%2Fapp.py"), 404, "not-found")


def test_the_description_has_its_own_media_type(service):
    answer = service.get("/openapi.json")
    assert answer.headers["content-type"] == "application/vnd.oai.openapi+json;version=3.1"
    assert answer.json()["openapi"] == "3.1.0"
