"""Whole HTML pages around an article, with the clutter of real sites that a main-text extractor
must leave out.

Rule: one layout per host, chosen by the site builder; the same arguments give the same bytes.
"""

from collections.abc import Callable, Sequence
from html import escape

Link = tuple[str, str]
"""Path and title of another page of the same host."""
Layout = Callable[[str, str, str, Sequence[Link]], str]
"""(host, title, article's HTML, links to neighbours) -> page."""


def _document(title: str, body: str, head: str = "") -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{head}</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _items(links: Sequence[Link]) -> str:
    return "\n".join(
        f'<li><a href="{escape(path)}">{escape(title[:60])}</a></li>' for path, title in links
    )


def blog(host: str, title: str, html: str, links: Sequence[Link]) -> str:
    """A weblog: menu, share buttons, comment form, sidebar with recent posts, newsletter box."""
    return _document(
        f"{title} | {host}",
        f"""<div id="cookie-banner" class="cookie-consent" role="dialog">
<p>We and our 214 partners use cookies to make this site work and to count visits.</p>
<button>Accept all</button> <button>Only the necessary ones</button></div>
<header class="site-header"><a class="logo" href="/">{escape(host)}</a>
<nav><ul><li><a href="/">Home</a></li><li><a href="/archive">Archive</a></li>
<li><a href="/about">About</a></li><li><a href="/feed.xml">Feed</a></li></ul></nav></header>
<main><article class="post"><h1>{escape(title)}</h1>
<div class="entry-content">
{html}
</div>
<div class="share-buttons"><a href="#">Share</a> <a href="#">Tweet</a> <a href="#">Print</a></div>
</article></main>
<aside class="sidebar"><h3>Recent posts</h3><ul>
{_items(links)}
</ul><h3>Newsletter</h3><form><input type="email"><button>Sign me up</button></form></aside>
<footer class="site-footer"><p>© {escape(host)}. All rights reserved. <a
href="/privacy">Privacy</a></p>
</footer>
<script>window.visits = (window.visits || 0) + 1; track("page", {{}});</script>""",
        "<style>.cookie-consent{position:fixed;bottom:0}.sidebar{float:right}</style>\n",
    )


def manual(host: str, title: str, html: str, links: Sequence[Link]) -> str:
    """A documentation site: breadcrumbs, contents at the left, "was this helpful", version
    switch."""
    return _document(
        title,
        f"""<div class="topbar"><a href="/">{escape(host)} documentation</a>
<form action="/search"><input name="q" placeholder="Search the docs"></form>
<select><option>latest</option><option>stable</option></select></div>
<div class="layout"><nav class="toc" aria-label="Contents"><p>On this site</p><ul>
{_items(links)}
</ul></nav>
<main role="main"><ol class="breadcrumb"><li><a href="/">Home</a></li><li>Reference</li></ol>
<article><h1>{escape(title)}</h1>
{html}
</article>
<div class="feedback">Was this page helpful? <button>Yes</button> <button>No</button></div>
</main></div>
<footer><ul><li><a href="/imprint">Imprint</a></li><li><a href="/contact">Contact</a></li>
<li><a href="/status">Status</a></li></ul><p>Built with patience.</p></footer>""",
    )


def tables(host: str, title: str, html: str, links: Sequence[Link]) -> str:
    """A page as they were made long ago: layout by tables, link columns, a visitor counter."""
    return _document(
        f"{host} - {title}",
        f"""<table width="100%" border="0"><tr><td colspan="2" bgcolor="#ccccff">
<font size="+2"><b>{escape(host)}</b></font> [<a href="/">home</a>] [<a href="/guestbook">guest
book</a>] [<a href="/links">links</a>]</td></tr>
<tr><td width="160" valign="top"><b>See also</b><ul>
{_items(links)}
</ul><img src="/banner.gif" alt="advertisement" width="120" height="60"></td>
<td valign="top"><div class="content"><h1>{escape(title)}</h1>
{html}
</div></td></tr>
<tr><td colspan="2" align="center"><small>You are visitor number 004711. Best viewed at 800 x 600.
Mail the webmaster.</small></td></tr></table>""",
    )


def magazine(host: str, title: str, html: str, links: Sequence[Link]) -> str:
    """A magazine: mega menu, advertisements between the parts, "read next", a subscription wall's
    notice."""
    return _document(
        f"{title} — {host}",
        f"""<header><div class="ad ad-top">Advertisement</div>
<nav class="mega-menu"><a href="/news">News</a> <a href="/culture">Culture</a> <a
href="/science">Science</a>
<a href="/opinion">Opinion</a> <a href="/sport">Sport</a> <a href="/login">Log in</a>
<a href="/subscribe">Subscribe</a></nav></header>
<div id="page"><article itemscope><header><h1 itemprop="headline">{escape(title)}</h1></header>
<div itemprop="articleBody" class="article-body">
{html}
</div></article>
<section class="related"><h2>Read next</h2><ul>
{_items(links)}
</ul></section>
<div class="popup newsletter">Never miss a story: get the week in your inbox every
Sunday.</div></div>
<footer><p>Terms of use · Cookie settings · Careers · Advertise with us</p></footer>""",
        '<meta property="og:type" content="article">\n'
        f'<meta property="og:title" content="{escape(title)}">\n',
    )


def forum(host: str, title: str, html: str, links: Sequence[Link]) -> str:
    """A forum's thread: log-in bar, the opening post, signatures, similar threads."""
    return _document(
        f"{title} - {host} boards",
        f"""<div class="userbar">Welcome, guest. <a href="/login">Log in</a> or <a
        href="/join">register</a>.
<span>Online now: 12 members, 340 guests</span></div>
<div class="nav-path"><a href="/">Boards</a> &raquo; <a href="/general">General</a></div>
<div class="thread"><div class="post" id="p1"><div class="post-body
message-content"><h1>{escape(title)}</h1> {html}
</div><div class="signature">-- sent from my typewriter</div></div></div>
<div class="similar"><h4>Similar threads</h4><ul>
{_items(links)}
</ul></div>
<div class="footer">Powered by boards 3.1 · all times are UTC · <a href="/rules">Rules</a></div>""",
    )


LAYOUTS: tuple[Layout, ...] = (blog, manual, tables, magazine, forum)
