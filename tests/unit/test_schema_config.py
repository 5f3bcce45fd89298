"""supabase/config.toml and the files it names."""

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stack.config import ROOT

CONFIG: dict[str, Any] = tomllib.loads((ROOT / "supabase" / "config.toml").read_text())  # TOML: values of any type
EMAILS = {**CONFIG["auth"]["email"]["template"], **CONFIG["auth"]["email"]["notification"]}
TEMPLATES = ROOT / "supabase" / "templates"
VOID = {"meta", "br", "img", "hr", "link"}
# what Auth fills in (Supabase docs, guides/auth/auth-email-templates)
VARIABLES = {"ConfirmationURL", "Token", "Email", "NewEmail", "SiteURL", "RedirectTo", "TokenHash", "Data"}


class Balanced(HTMLParser):
    """Raises where an element is closed that is not the innermost open one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_only_our_schema_is_exposed() -> None:
    assert CONFIG["api"]["schemas"] == ["api"]
    assert CONFIG["api"]["auto_expose_new_tables"] is False


def test_nothing_secret_stands_in_the_file() -> None:
    text = (ROOT / "supabase" / "config.toml").read_text()
    secrets = re.findall(r"^[# ]*(?:\w+_)?(?:secret|pass|password|token|key) *= *(\"(?!env\().*\")", text, re.MULTILINE)
    assert secrets == []


@pytest.mark.parametrize("name", EMAILS)
def test_every_email_has_a_readable_template(name: str) -> None:
    email = EMAILS[name]
    assert email["subject"]
    html = (ROOT / email["content_path"]).read_text()
    page = Balanced()
    page.feed(html)
    assert page.open == []
    assert set(re.findall(r"{{ \.(\w+)[^}]*}}", html)) <= VARIABLES
    assert html.count("{{") == len(re.findall(r"{{ \.\w+ }}", html))
    if name in CONFIG["auth"]["email"]["template"]:
        assert "{{ .Token }}" in html  # a link may be opened by a mail scanner; the code may not


def test_no_template_is_left_unused() -> None:
    used = {Path(email["content_path"]).name for email in EMAILS.values()}
    assert {file.name for file in TEMPLATES.iterdir()} == used


def test_every_bucket_is_private_and_bounded() -> None:
    for bucket in CONFIG["storage"]["buckets"].values():
        assert bucket["public"] is False
        assert bucket["file_size_limit"]
        assert bucket["allowed_mime_types"]
