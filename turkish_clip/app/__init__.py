"""The web page, in Turkish: photographs, found by words and images, in the browser of a phone or a desk.

It is a page of its own (`static/`: HTML, CSS and JavaScript without libraries) on Starlette (extra `app`). It was built
on Gradio before: Gradio's bundle names hosts outside (fonts, maps, CDNs), has English texts that nothing translates and
colours of too little contrast, so that no policy could forbid the page to ask other hosts, as `routes.py` does now.
"""

from turkish_clip.app.routes import build_page

__all__ = ["build_page"]
