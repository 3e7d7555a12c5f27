"""The words and tables of ``results_page.py``: from results as JSON to Markdown and a picture."""
