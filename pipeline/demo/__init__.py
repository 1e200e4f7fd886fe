"""The embedded web: real text of this Python installation on virtual hosts, a dump that links to
it, the whole story.

Nothing here is needed by a real run. `python -m pipeline.demo` tells the story from links to a
trained model.
"""
