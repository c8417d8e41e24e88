"""A page of clips with their masked regions and guesses: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from alpro.commands.cli import pluralize
from alpro.commands.gallery.clip_cards import Guess, ShownClip, erased_frames, outlined_frames
from alpro.commands.gallery.html_page import html_page, isolated

STORED_SIDE = 210  # pixels; shown smaller, so that it is sharp on dense screens
SHOWN_SIDE = 140
QUALITY = 90  # of JPEG

_STYLE = """
:root { color-scheme: light dark;
  --paper: #f4f5f7; --card: #ffffff; --ink: #1c2026; --pale: #6b7480; --line: #e2e5ea;
  --track: #edeff2; --prompter: #3b78d8; --model: #8a5cc9; --said: #128a46; --region: #ff5c26; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181c; --card: #1f2329; --ink: #e8eaed; --pale: #98a1ac; --line: #323840;
  --track: #2b3037; --prompter: #6c9fee; --model: #ae8be6; --said: #4cc583; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 32px 20px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; }
h1 { margin: 0 0 6px; font-size: 26px; }
p { margin: 0 0 10px; max-width: 76ch; }
.pale, figcaption, h3 { color: var(--pale); }
.region { color: var(--region); font-weight: 600; }
.said { color: var(--said); font-weight: 600; }
article { margin: 22px 0 0; padding: 18px 22px 20px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
header { display: flex; gap: 18px; align-items: baseline; }
h2 { flex: 1; }
.chip { margin-left: 6px; }
h2 { margin: 0; font-size: 18px; font-weight: 600; }
.chip { padding: 1px 10px; border-radius: 99px; border: 1px solid currentColor; font-size: 13px;
  white-space: nowrap; }
header > span { max-width: 50%; overflow-wrap: anywhere; text-align: right; }
@media (max-width: 600px) { header { display: block; }
  header > span { display: block; max-width: none; margin-top: 6px; text-align: left; }
  .chip { margin-left: 0; } }
.columns { display: grid; gap: 18px 32px; margin-top: 12px;
  grid-template-columns: minmax(0, 1fr) minmax(280px, 360px); }
@media (max-width: 1060px) { .columns { grid-template-columns: minmax(0, 1fr); } }
figure { margin: 0 0 12px; }
figcaption, h3 { margin: 0 0 5px; font-size: 13px; font-weight: 400; }
.frames { display: flex; flex-wrap: wrap; gap: 4px; }
.frames img { display: block; border-radius: 3px; }
section { margin: 0 0 16px; }
.guess { display: grid; grid-template-columns: 108px 1fr 44px; gap: 10px; align-items: center;
  height: 24px; }
.guess > :first-child { text-align: right; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.guess > :last-child { text-align: right; font-variant-numeric: tabular-nums; font-size: 13px; }
.track { position: relative; height: 14px; border-radius: 3px; background: var(--track); }
.bar { height: 100%; border-radius: 3px; }
.prompter .bar { background: var(--prompter); }
.model .bar { background: var(--model); }
.mark { position: absolute; top: -3px; bottom: -3px;
  border-left: 2px solid var(--ink); opacity: 0.55; }
"""


def entity_page(clips: Sequence[ShownClip], *, title: str, note: str, threshold: float) -> str:
    """The page as HTML.

    Args:
        clips: shown one below the other.
        title: of the page.
        note: what the clips and guesses are from.
        threshold: of the best entity's probability, for a clip to count.
    """
    cards = "\n".join(_card(clip, threshold=threshold) for clip in clips)
    main = f"""<h1>{escape(title)}</h1>
<p class="pale">{escape(note)}</p>
<p>The prompter looks at nothing but the <span class="region">outlined region</span> and says how
probable each entity is there. The model sees the whole frames, reads the caption, and learns to
say the same of that region. Where the prompter's best entity stays below {threshold:g} (the line
in its bar), the clip gives no entity loss. <span class="said">Green entities</span> stand in the
caption.</p>
<p>{_summary(clips)}</p>
{cards}"""
    return html_page(main, title=title, style=_STYLE)


def _summary(clips: Sequence[ShownClip]) -> str:
    sure = [clip for clip in clips if clip.is_confident]
    if not sure:
        return f"The prompter is confident on none of {pluralize(len(clips), 'clip')}."
    agreed = sum(clip.agrees for clip in sure)
    return (
        f"Of {pluralize(len(clips), 'clip')} the prompter is confident on {len(sure)}; on {agreed} "
        "of these the model's first guess is the prompter's."
    )


def _card(clip: ShownClip, *, threshold: float) -> str:
    whole, erased = (frames(clip, side=STORED_SIDE) for frames in (outlined_frames, erased_frames))
    mark = f'<div class="mark" style="left: {_percent(threshold)}"></div>'
    return f"""<article>
<header>
<h2>{isolated(f"“{clip.caption}”")}</h2>
<span><span class="pale">{isolated(clip.video_id)}</span> {_chip(clip, threshold=threshold)}</span>
</header>
<div class="columns">
<div>
{_figure("What the prompter sees", erased)}
{_figure("What the model sees, and the region it is asked about", whole)}
</div>
<div>
{_guesses(clip, clip.prompter, name="prompter", title="The prompter on the region", mark=mark)}
{_guesses(clip, clip.model, name="model", title="The model on the same region")}
</div>
</div>
</article>"""


def _chip(clip: ShownClip, *, threshold: float) -> str:
    if clip.is_confident:
        return '<span class="chip said">confident</span>'
    return f'<span class="chip pale">below {threshold:g}: no entity loss</span>'


def _figure(caption: str, pictures: Sequence[Image.Image]) -> str:
    images = "\n".join(
        f'<img src="{_data_uri(picture)}" width="{SHOWN_SIDE}" height="{SHOWN_SIDE}" '
        f'alt="frame {number} of {len(pictures)}">'
        for number, picture in enumerate(pictures, start=1)
    )
    return (
        f"<figure>\n<figcaption>{escape(caption)}</figcaption>\n"
        f'<div class="frames">\n{images}\n</div>\n</figure>'
    )


def _data_uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _guesses(
    clip: ShownClip, guesses: Sequence[Guess], *, name: str, title: str, mark: str = ""
) -> str:
    """Bars of probability; ``mark`` is drawn into that of the first."""
    rows = []
    for place, guess in enumerate(guesses):
        said = ' class="said"' if clip.mentions(guess.entity) else ""
        rows.append(
            f'<div class="guess"><span{said}>{escape(guess.entity)}</span>'
            f'<div class="track"><div class="bar" style="width: {_percent(guess.probability)}">'
            f"</div>{mark if place == 0 else ''}</div>"
            f'<span class="pale">{guess.probability:.2f}</span></div>'
        )
    lines = "\n".join(rows)
    return f'<section class="{name}">\n<h3>{escape(title)}</h3>\n{lines}\n</section>'


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.1f}%"
