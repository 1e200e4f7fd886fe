"""Reddit's links become documents: submissions, links, pages, documents, signals.

Knows neither dedup, training nor pipeline. The only network traffic of the program leaves from
this package, and a document's id is opaque outside `crawl.url`.
"""
