"""The report: its page, its facts and costs, and the data of its browser of responses."""

STYLES = ("report.css", "report_browser.css")
SCRIPTS = tuple(f"browser/{name}.js" for name in ("data", "query", "differences", "list", "item", "main"))
PAGE_SCRIPT = "report_page.js"
RESPONSES = "responses.html.jinja"
ASSETS = (*STYLES, *SCRIPTS, PAGE_SCRIPT, "report_head.html.jinja", "report_browser.html.jinja", RESPONSES)
"""The files beside the template in resources/ that a page is made of. STYLES are joined in their order, and so are
SCRIPTS, which are the browser's. RESPONSES is the template of the page of responses."""
