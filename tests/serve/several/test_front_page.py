"""The pages of several jobs in a real browser: from the list to a job, whose page changes by its own events."""

from __future__ import annotations

import pytest

from tests.report.browser import Browser
from tests.serve.several.both import Both, job_of
from tests.serve.several.test_several import greeted
from tests.serve.test_live_page import wait_for
from tests.web.tabs import needs_browser

pytestmark = pytest.mark.usefixtures("one_thread")


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_from_the_list_to_a_job_that_fails_as_one_looks(tmp_path, width, scheme):
    both = Both(tmp_path, {"good": job_of(), "bad": job_of("seed=3")})
    both.served.jobs["bad"].served.fleet.pace.deadline = lambda opening: 0.3
    with both, Browser(width=width, scheme=scheme) as browser:
        browser.open(both.url() + "/")
        text = browser.value("document.body.innerText")
        assert "2 jobs" in text and text.count("waiting") == 2 and "0 / 2" in text
        assert browser.value("document.documentElement.scrollWidth") <= width
        browser.open(browser.value("document.querySelectorAll('td a')[1].href"))
        assert browser.value("location.pathname") == "/jobs/bad/"
        assert "bad" in browser.value("document.querySelector('h1').innerText")
        browser.value("window.kept = 1")
        greeted(both, "bad")
        wait_for(browser, "document.body.innerText.includes('twice in a row')")
        assert browser.value("document.querySelector('.phase').innerText") == "failed"
        assert browser.value("window.kept") == 1, "without a reload"
        assert browser.value("document.documentElement.scrollWidth") <= width
        asked = [url for url in browser.requests if url.endswith("/events")]
        assert asked == [both.url("bad") + "/events"], "one stream, of the job's own"
        assert browser.value("document.querySelector('h1 a').href") == both.url() + "/"
        assert not browser.complaints
