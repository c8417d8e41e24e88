"""How the report's page looks."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #f4f5f7; --card: #ffffff; --ink: #1c2026; --pale: #6b7480; --line: #e2e5ea;
  --track: #edeff2; --bar: #3b78d8; --bad: #c93a2b; --bad-paper: #fdecea; --good: #128a46;
  --good-paper: #e6f5ec; --remark: #8a6100; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181c; --card: #1f2329; --ink: #e8eaed; --pale: #98a1ac; --line: #323840;
  --track: #2b3037; --bar: #6c9fee; --bad: #ff8474; --bad-paper: #3a2320; --good: #4cc583;
  --good-paper: #1c3226; --remark: #e0b45a; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 32px 20px 48px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; }
h1 { margin: 0 0 6px; font-size: 26px; overflow-wrap: anywhere; }
h2 { margin: 34px 0 10px; font-size: 18px; }
h3 { margin: 0 0 8px; font-size: 15px; }
p { margin: 0 0 10px; }
a { color: inherit; text-decoration-color: var(--pale); text-underline-offset: 3px; }
.pale { color: var(--pale); font-weight: 400; }
.verdict { margin: 16px 0; padding: 12px 18px; border-radius: 10px; }
.verdict.bad { background: var(--bad-paper); } .verdict.bad b { color: var(--bad); }
.verdict.good { background: var(--good-paper); } .verdict.good b { color: var(--good); }
.notice { padding: 0 18px; color: var(--remark); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0 0; }
.tiles div { flex: 1 1 130px; padding: 12px 18px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
.tiles b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--pale); }
table { width: 100%; border-collapse: collapse; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; border-spacing: 0; }
td, th { padding: 6px 12px; border-top: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: break-word; }
.path { overflow-wrap: anywhere; min-width: 180px; }
.wide { overflow-x: auto; }
tr:first-child > * { border-top: 0; }
th { color: var(--pale); font-weight: 400; font-size: 13px; overflow-wrap: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.chip { padding: 1px 10px; border: 1px solid currentColor; border-radius: 99px; font-size: 13px;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
.chip.problem { color: var(--bad); } .chip.remark { color: var(--remark); }
.charts { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
.chart, details { padding: 14px 18px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.chart p { margin: -4px 0 8px; font-size: 13px; }
.row { display: grid; grid-template-columns: 104px 1fr 58px; gap: 10px; align-items: center;
  height: 20px; font-size: 13px; font-variant-numeric: tabular-nums; }
.row > span { text-align: right; white-space: nowrap; }
.row > :first-child { color: var(--pale); }
.track { height: 12px; border-radius: 3px; background: var(--track); }
.bar { height: 100%; border-radius: 3px; background: var(--bar); }
.beyond .bar { background: var(--bad); }
details { margin: 0 0 10px; }
summary { cursor: pointer; font-weight: 600; }
summary .chip { margin: 0 6px 0 4px; font-weight: 400; }
details > p { margin: 8px 0; }
details td { font-size: 14px; }
details td:first-child { width: 38%; }
details td:last-child { width: 22%; }
@media (max-width: 640px) {
  body { padding: 20px 12px 32px; }
  .stacked, .stacked tbody { display: block; }
  .stacked tr { display: flex; flex-wrap: wrap; gap: 2px 10px; padding: 8px 12px;
    border-top: 1px solid var(--line); }
  .stacked tr:first-child { border-top: 0; }
  .stacked td, details .stacked td { width: auto; min-width: 0; padding: 0; border: 0; }
  .stacked td:last-child, details .stacked td { flex: 1 0 100%; overflow-wrap: anywhere; }
  .stacked .title { flex: 1; }
  .chart, details { padding: 12px; }
  details .stacked tr { padding: 8px 0; }
  .charts { grid-template-columns: 1fr; }
}
"""
