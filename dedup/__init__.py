"""Documents that say the same thing are kept once, and only good ones at all.

signatures.sign -> pairs.match -> duplicates.find -> corpus.keep: nothing before `corpus` drops
anything.
"""
