"""What a person sees of a real service in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

if TYPE_CHECKING:
    from browser.conftest import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WAIT_FOR_FILE = """
import pathlib, sys, time
sys.stdout.reconfigure(line_buffering=True)
print("first words")
deadline = time.monotonic() + 120
while not pathlib.Path(sys.argv[1]).exists() and time.monotonic() < deadline:
    time.sleep(0.02)
print("last words")
"""


def waiting_job(signal: Path, **fields: Any) -> dict[str, Any]:
    """A job that prints, waits until `signal` exists, prints again and ends."""
    return {"command": [sys.executable, "-c", WAIT_FOR_FILE, str(signal)], **fields}


def python(text: str, **fields: Any) -> dict[str, Any]:
    return {"command": [sys.executable, "-c", text], **fields}


# -- getting in ------------------------------------------------------------------------


def test_without_a_session_the_page_says_how_to_get_one(stranger: Visitor) -> None:
    stranger.page.goto(stranger.service.url)
    api.expect(stranger.page.locator(".login")).to_contain_text("simyard dashboard")
    api.expect(stranger.page.locator("header.top")).to_be_hidden()


def test_a_code_opens_the_dashboard_once_and_leaves_the_address(stranger: Visitor) -> None:
    code = stranger.code()
    stranger.page.goto(f"{stranger.service.url}/#code={code}")
    api.expect(stranger.page.locator("#link-state")).to_have_text("live")
    assert code not in stranger.page.url
    stranger.page.reload()
    api.expect(stranger.page.locator("#link-state")).to_have_text("live")

    stranger.page.goto("about:blank")
    stranger.page.goto(f"{stranger.service.url}/#code={code}")
    api.expect(stranger.page.locator(".login")).to_contain_text("does not work any more")
    assert [text for text in stranger.complaints if "401" in text]
    stranger.complaints.clear()


def test_the_file_that_the_shell_makes_lets_a_browser_in(stranger: Visitor) -> None:
    home = stranger.service.home
    command = [sys.executable, "-m", "simyard", "dashboard", "--no-open", "--quiet"]
    done = subprocess.run(
        [*command, "--home", str(home)], capture_output=True, text=True, timeout=60, check=True
    )
    address = done.stdout.strip()
    assert Path(unquote(urlsplit(address).path)).stat().st_mode & 0o077 == 0
    stranger.page.goto(address)
    api.expect(stranger.page.locator("#link-state")).to_have_text("live")
    assert "code=" not in stranger.page.url


def test_nothing_is_asked_of_another_host(visitor: Visitor) -> None:
    api.expect(visitor.page.locator(".tile").first).to_be_visible()
    here = urlsplit(visitor.service.url).netloc
    assert {urlsplit(address).netloc for address in visitor.addresses} == {here}


# -- the list --------------------------------------------------------------------------


def test_the_list_follows_a_job_to_its_end_without_a_reload(
    visitor: Visitor, tmp_path: Path
) -> None:
    signal = tmp_path / "go on"
    visitor.page.evaluate("() => { window.notReloaded = true }")
    job_id = visitor.service.submit(waiting_job(signal, name="patch 12.5 mm"))
    row = visitor.row(job_id)
    api.expect(row.locator(".chip")).to_have_text("running")
    api.expect(row.locator(".name")).to_have_text("patch 12.5 mm")
    api.expect(row.locator(".c-duration")).to_have_text(re.compile(r"^\d+ s$"))
    signal.touch()
    api.expect(row.locator(".chip")).to_have_text("completed")
    assert visitor.page.evaluate("() => window.notReloaded")


def test_a_waiting_job_says_what_it_waits_for(visitor: Visitor, tmp_path: Path) -> None:
    service, signal = visitor.service, tmp_path / "go on"
    first = service.submit(waiting_job(signal, name="upstream"))
    second = service.submit(python("pass", name="downstream", depends_on=[first]))
    held = service.submit(python("pass", name="kept back", hold=True))
    api.expect(visitor.row(second).locator(".c-detail")).to_contain_text(first)
    api.expect(visitor.row(held).locator(".c-detail")).to_contain_text("held")
    signal.touch()
    api.expect(visitor.row(second).locator(".chip")).to_have_text("completed")
    visitor.service.ask("POST", f"/api/jobs/{held}/cancel")


def test_search_words_and_state_buttons_narrow_the_list(visitor: Visitor) -> None:
    service, page = visitor.service, visitor.page
    good = service.submit(python("pass", name="narrow good"))
    bad = service.submit(python("raise SystemExit(3)", name="narrow bad"))
    service.wait_for_end(good)
    service.wait_for_end(bad)
    page.keyboard.press("/")
    page.keyboard.type("name:narrow")
    api.expect(page.locator(".list-foot")).to_have_text("2 jobs")
    page.locator(".tab", has_text="failed").click()
    api.expect(page.locator(".list-foot")).to_have_text("1 job")
    api.expect(visitor.row(bad).locator(".c-detail")).to_have_text("exit code 3")
    api.expect(page.locator("#search")).to_have_value("state:failed name:narrow")
    assert "state%3Afailed" in page.url
    page.reload()
    api.expect(page.locator(".list-foot")).to_have_text("1 job")
    page.locator("#search").fill("state:nonsense")
    api.expect(page.locator(".search-note")).to_contain_text("nonsense")
    assert [text for text in visitor.complaints if "400" in text]
    visitor.complaints.clear()


def test_the_keyboard_walks_the_list_and_opens_a_job(visitor: Visitor) -> None:
    page = visitor.page
    ids = visitor.service.submit_many([python("pass", name=f"walk {n}", hold=True) for n in "ab"])
    visitor.go("#/?q=name%3Awalk")
    api.expect(page.locator(".list-foot")).to_have_text("2 jobs")
    page.keyboard.press("j")
    page.keyboard.press("j")
    api.expect(visitor.row(ids[0]).locator(".name")).to_be_focused()
    page.keyboard.press("x")
    api.expect(page.locator(".bulk")).to_contain_text("1 selected")
    page.keyboard.press("?")
    api.expect(page.locator("dialog[open]")).to_contain_text("Next row")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    api.expect(page.locator(".job-name h1")).to_have_text("walk a")
    visitor.service.ask("POST", "/api/jobs/cancel", {"ids": ids})


def test_selected_jobs_are_cancelled_together_after_a_question(visitor: Visitor) -> None:
    page = visitor.page
    ids = visitor.service.submit_many([python("pass", name=f"bulk {n}", hold=True) for n in "abc"])
    visitor.go("#/?q=name%3Abulk")
    api.expect(page.locator(".list-foot")).to_have_text("3 jobs")
    for job_id in ids[:2]:
        visitor.row(job_id).locator("input").check()
    page.locator(".bulk button", has_text="Cancel jobs").click()
    page.locator("dialog[open] button", has_text="No, go back").click()
    assert visitor.service.job(ids[0])["state"] == "held"
    page.locator(".bulk button", has_text="Cancel jobs").click()
    page.locator("dialog[open] button", has_text="Cancel 2 jobs").click()
    api.expect(visitor.row(ids[0]).locator(".chip")).to_have_text("cancelled")
    api.expect(visitor.row(ids[1]).locator(".chip")).to_have_text("cancelled")
    api.expect(page.locator(".toast")).to_contain_text("2 jobs cancelled")
    assert visitor.service.job(ids[2])["state"] == "held"
    visitor.service.ask("POST", f"/api/jobs/{ids[2]}/cancel")


def test_of_thousands_of_jobs_only_the_visible_rows_exist(visitor: Visitor) -> None:
    page, many = visitor.page, 1500
    specs = [python("pass", name=f"crowd {n}", hold=True) for n in range(many)]
    ids = visitor.service.submit_many(specs)
    visitor.go("#/?q=name%3Acrowd")
    api.expect(visitor.row(ids[-1])).to_be_visible()
    for _ in range(200):
        page.evaluate("() => scrollTo(0, document.documentElement.scrollHeight)")
        if visitor.row(ids[0]).count():
            break
        page.wait_for_timeout(50)
    api.expect(visitor.row(ids[0])).to_be_visible()
    assert page.locator(".rows .row").count() < 60
    api.expect(page.locator(".list-foot")).to_have_text("1,500 jobs")
    page.locator(".head .c-name button").click()
    api.expect(page.locator(".rows .row .name").first).to_have_text("crowd 0")
    visitor.service.ask("POST", "/api/jobs/cancel", {"filter": {"name": "crowd"}})


# -- one job ---------------------------------------------------------------------------


def test_a_log_grows_while_its_job_runs(visitor: Visitor, tmp_path: Path) -> None:
    signal = tmp_path / "go on"
    job_id = visitor.service.submit(waiting_job(signal))
    visitor.go(f"#/jobs/{job_id}")
    log = visitor.page.locator(".log")
    api.expect(log).to_contain_text("first words")
    api.expect(log).not_to_contain_text("last words")
    api.expect(visitor.page.locator(".job-name .chip")).to_have_text("running")
    signal.touch()
    api.expect(log).to_contain_text("last words")
    api.expect(visitor.page.locator(".job-name .chip")).to_have_text("completed")
    api.expect(visitor.page.locator(".outcome")).to_contain_text("exit code 0")
    api.expect(visitor.page.locator(".timeline")).to_contain_text("Completed")
    api.expect(visitor.page.locator(".log-foot")).to_contain_text("Complete: 2 lines")


def test_cancel_asks_first_and_ends_the_job(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    job_id = visitor.service.submit(waiting_job(tmp_path / "never"))
    visitor.service.wait_for(job_id, "running")
    visitor.go(f"#/jobs/{job_id}")
    page.locator(".actions button", has_text="Cancel").click()
    page.locator("dialog[open] button", has_text="Cancel the job").click()
    api.expect(page.locator(".job-name .chip")).to_have_text("cancelled")
    assert visitor.service.wait_for_end(job_id)["state"] == "cancelled"
    visitor.service.wait_for_no_process_of([job_id])


def test_retry_makes_a_new_job_and_shows_it(visitor: Visitor) -> None:
    page = visitor.page
    job_id = visitor.service.submit(python("print('again'); raise SystemExit(3)", name="stumbles"))
    visitor.service.wait_for_end(job_id)
    visitor.go(f"#/jobs/{job_id}")
    api.expect(page.locator(".outcome")).to_contain_text("exit code 3")
    page.locator(".actions button", has_text="Retry").click()
    api.expect(page.locator(".job-facts")).to_contain_text(f"a retry of job {job_id}")
    new_id = page.url.rpartition("/")[2]
    assert new_id != job_id
    assert visitor.service.wait_for_end(new_id)["retry_of"] == job_id
    api.expect(page.locator(".job-name .chip")).to_have_text("failed")
    api.expect(page.locator(".log")).to_contain_text("again")


def test_hold_and_release_from_the_page(visitor: Visitor) -> None:
    page = visitor.page
    job_id = visitor.service.submit(python("print('let go')", hold=True))
    visitor.go(f"#/jobs/{job_id}")
    page.locator(".actions button", has_text="Release").click()
    api.expect(page.locator(".job-name .chip")).to_have_text("completed")
    api.expect(page.locator(".log")).to_contain_text("let go")


def test_the_command_is_exact_and_secrets_are_masked(visitor: Visitor) -> None:
    page = visitor.page
    spec = python("print(1)", env={"SOLVER_KEY": "hunter2", "MODE": "fast"})
    spec["command"].append("two words")
    job_id = visitor.service.submit(spec)
    visitor.go(f"#/jobs/{job_id}")
    api.expect(page.locator(".command")).to_contain_text("-c 'print(1)' 'two words'")
    page.locator("summary").click()
    environment = page.locator(".env")
    api.expect(environment).to_contain_text("MODE")
    api.expect(environment).to_contain_text("SOLVER_KEY")
    assert "hunter2" not in page.content()


def test_logs_and_files_can_be_downloaded(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    text = "open('s11 #1.csv', 'w').write('f;s11'); print('printed', end='')"
    job_id = visitor.service.submit(python(text))
    visitor.service.wait_for_end(job_id)
    visitor.go(f"#/jobs/{job_id}")
    with page.expect_download() as download:
        page.locator(".file", has_text="s11 #1.csv").click()
    download.value.save_as(tmp_path / "result")
    assert (tmp_path / "result").read_text() == "f;s11"
    with page.expect_download() as download:
        page.locator(".log-bar button", has_text="Download").click()
    download.value.save_as(tmp_path / "log")
    assert (tmp_path / "log").read_text() == "printed"
    assert download.value.suggested_filename == f"job-{job_id}-stdout.log"


def test_stderr_has_a_tab_and_the_log_can_be_searched(visitor: Visitor) -> None:
    page = visitor.page
    text = (
        "import sys; [print('step', n) for n in range(50)]; print('warning: mesh', file=sys.stderr)"
    )
    job_id = visitor.service.submit(python(text))
    visitor.service.wait_for_end(job_id)
    visitor.go(f"#/jobs/{job_id}")
    api.expect(page.locator(".log")).to_contain_text("step 49")
    page.locator(".find input").fill("STEP 4")
    api.expect(page.locator(".found")).to_have_text("11")
    assert page.locator(".log mark").first.inner_text() == "step 4"
    page.keyboard.press("Enter")
    api.expect(page.locator(".found")).to_have_text("1 of 11")
    page.locator(".find input").fill("")
    page.locator("#tab-stderr").click()
    api.expect(page.locator(".log")).to_contain_text("warning: mesh")


def test_a_long_log_keeps_its_end_and_says_so(visitor: Visitor) -> None:
    page = visitor.page
    job_id = visitor.service.submit(python("for n in range(60000): print('line', n)"))
    visitor.service.wait_for_end(job_id)
    visitor.go(f"#/jobs/{job_id}")
    api.expect(page.locator(".log")).to_contain_text("line 59999")
    api.expect(page.locator(".dropped")).to_contain_text("the last 20,000 lines")
    assert page.locator(".log .block > div").count() <= 20_000


def test_an_unknown_job_is_said_to_be_unknown(visitor: Visitor) -> None:
    visitor.go("#/jobs/999999999")
    api.expect(visitor.page.locator(".empty-page")).to_contain_text("999999999")
    assert [text for text in visitor.complaints if "404" in text]
    visitor.complaints.clear()


# -- nothing foreign is executed -------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>"
SEQUENCES = (
    "\x1b]0;a title\x07\x1b]8;;javascript:alert(1)\x07a link\x1b]8;;\x07"
    "\x1b]52;c;aGF2b2M=\x07\x1b[2J\x1b[H\x1b[6n\x1bP$qm\x1b\\\x9b31m\u202etxet\u202c"
    "<script>alert(2)</script><img src=x onerror=alert(3)>"
    "\x1b[31mred\x1b[0m \x1b[38;2;1;2;3;4mtrue\x1b[m &lt;b&gt; bell\x07back\x08next\x85end \x1b]unfinished"
)


def test_hostile_names_and_output_execute_nothing(visitor: Visitor) -> None:
    page = visitor.page
    spec = python(
        f"import sys; text = {SEQUENCES!r}; print(text); print(text, file=sys.stderr); "
        "open('<img src=x onerror=alert(4)>.txt', 'w').close()",
        name=HOSTILE,
        env={"MODE": HOSTILE},
        tags={"note": HOSTILE},
        depends_on=[],
    )
    job_id = visitor.service.submit(spec)
    visitor.service.wait_for_end(job_id)
    api.expect(visitor.row(job_id).locator(".name")).to_have_text(HOSTILE)
    visitor.go(f"#/jobs/{job_id}")
    api.expect(page.locator(".job-name h1")).to_have_text(HOSTILE)
    api.expect(page.locator(".files")).to_contain_text("<img src=x onerror=alert(4)>.txt")
    log = page.locator(".log")
    api.expect(log).to_contain_text("a link")
    api.expect(log).to_contain_text("<script>alert(2)</script><img src=x onerror=alert(3)>")
    shown = log.text_content()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)
    for hidden in ("a title", "javascript", "aGF2b2M", "[2J", "$qm", "unfinished"):
        assert hidden not in shown
    api.expect(log.locator(".fg-1")).to_have_text("red")
    page.locator("#tab-stderr").click()
    api.expect(log).to_contain_text("a link")
    assert page.locator("main img, main script, .log a").count() == 0
    page.locator(".actions button", has_text="Retry").click()
    api.expect(page.locator(".job-facts")).to_contain_text("a retry of job")


# -- the connection --------------------------------------------------------------------


def test_a_stopped_service_is_announced_and_so_is_its_return(
    own_visitor: Visitor, tmp_path: Path
) -> None:
    visitor, page, service = own_visitor, own_visitor.page, own_visitor.service
    signal = tmp_path / "go on"
    job_id = service.submit(waiting_job(signal))
    api.expect(visitor.row(job_id).locator(".chip")).to_have_text("running")
    service.terminate(20)
    api.expect(page.locator("#banner")).to_contain_text("No connection to the service")
    api.expect(visitor.row(job_id).locator(".chip")).to_have_text("running")
    signal.touch()
    service.start()
    again = page.locator("#banner button", has_text="Try now")
    login = page.locator(".login")
    api.expect(page.locator(".login, #link-state[data-state=live]").first).to_be_visible()
    if login.is_visible():
        # Sessions do not outlive the service; the page says how to get a new one.
        api.expect(login).to_contain_text("simyard dashboard")
        visitor.log_in()
    api.expect(again).to_be_hidden()
    api.expect(visitor.row(job_id).locator(".chip")).to_have_text("completed")
    visitor.complaints.clear()


def test_a_broken_connection_comes_back_by_itself(own_visitor: Visitor) -> None:
    visitor, page, service = own_visitor, own_visitor.page, own_visitor.service
    page.route("**/api/tickets", lambda route: route.abort())
    page.reload()
    api.expect(page.locator("#banner")).to_contain_text("No connection to the service")
    job_id = service.submit(python("pass", name="meanwhile"))
    page.unroute("**/api/tickets")
    page.locator("#banner button", has_text="Try now").click()
    api.expect(page.locator("#link-state")).to_have_text("live")
    api.expect(page.locator("#banner")).to_be_hidden()
    api.expect(visitor.row(job_id)).to_be_visible()
    api.expect(visitor.row(job_id).locator(".chip")).to_have_text("completed")
    visitor.complaints.clear()


# -- looks -----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1440])
def test_no_page_is_wider_than_the_window(
    browser: Any, visitor: Visitor, width: int, scheme: str
) -> None:
    page = visitor.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    name = "w" * 200
    job_id = visitor.service.submit(python(f"print({'x' * 5000!r})", name=name, hold=True))
    for where, sign in (
        ("#/", ".rows .row"),
        (f"#/jobs/{job_id}", ".log-card"),
        ("#/host", ".gauge"),
    ):
        visitor.go(where)
        api.expect(page.locator(sign).first).to_be_visible()
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= width, f"{where} is {wide} pixels wide"
    visitor.service.ask("POST", f"/api/jobs/{job_id}/cancel")
