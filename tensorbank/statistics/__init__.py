"""Numbers about pixels: mergeable statistics of a band, summaries of a selection, published normalisation constants."""
