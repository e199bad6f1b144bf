"""The report: its page, its facts and costs, and the data of its browser of responses."""

STYLES = ("report.css", "report_browser.css")
SCRIPTS = tuple(f"browser/{name}.js" for name in ("data", "query", "differences", "list", "item", "main"))
ASSETS = (*STYLES, *SCRIPTS, "report_browser.html.jinja")
"""The files beside the template in resources/ that a page is made of. Styles and scripts are joined in this order."""
