"""The report: its page, its facts and costs, and the data of its browser of responses."""
