"""How the page looks: bright and dark, on a wide screen and on a phone."""

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --soft: #59626d; --line: #e1e4e8; --page: #fff; --raised: #f5f6f8;
  --link: #1f5fc4; --better: #1a7f43; --same: #9a6700; --worse: #c4302b; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7eb; --soft: #9da5b0; --line: #343a42; --page: #14171b; --raised: #1e2228;
    --link: #79aef7; --better: #4cc07a; --same: #d9a72c; --worse: #f1706a; }
  img.ink { filter: invert(.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); overflow-wrap: break-word;
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 58rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.4rem 0 .6rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
p, figcaption { max-width: 46rem; }
h1 + p, p.verdict { max-width: none; }
p.note { margin: .5rem 0; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: 1rem 0 0; font-size: .9rem; }
nav a { text-decoration: none; padding: .15rem 0; }
nav a:hover { text-decoration: underline; }
.verdict { font-size: 1.1rem; font-weight: 600; padding: .7rem 1rem; margin: 1rem 0; border-radius: 4px;
  background: var(--raised); border-left: 5px solid var(--same); }
.verdict.better { border-color: var(--better); }
.verdict.worse { border-color: var(--worse); }
pre { background: var(--raised); padding: .7rem 1rem; border-radius: 4px; font-size: .88rem; }
figure { margin: 1rem 0; }
.layers { display: grid; justify-content: start; }
.layers > * { grid-area: 1 / 1; }
.layers img { display: block; max-width: 100%; height: auto; }
.panels { display: flex; flex-wrap: wrap; gap: .8rem 1rem; }
.whole img { min-width: var(--width); }
figcaption, .note { color: var(--soft); font-size: .9rem; }
figcaption { margin-top: .6rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .7rem; max-width: 44rem; }
summary { cursor: pointer; margin: .8rem 0; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 0 .35rem 1.2rem; font-size: .93rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { vertical-align: bottom; font-weight: 500; color: var(--soft); }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--page); }
td.best { font-weight: 700; }
.words td { text-align: left; white-space: normal; vertical-align: top; font-size: .85rem; }
.words th { text-align: left; }
.words td:first-child { white-space: nowrap; }
@media (min-width: 50rem) {
  dl { display: grid; grid-template-columns: 11rem 1fr; }
  .beside { display: flex; gap: 1.5rem; align-items: center; }
  .beside > :first-child { flex: none; }
}
@media (max-width: 44rem) {
  nav { flex-wrap: nowrap; overflow-x: auto; white-space: nowrap; }
  body { padding-top: 1rem; }
  .twins img { width: 100%; max-width: 32rem; }
  .panels .layers, .panels img { width: 100%; max-width: 24rem; }
  th:first-child, td:first-child { white-space: normal; min-width: 5.5rem; max-width: 7rem;
    border-right: 1px solid var(--line); padding-right: .4rem; }
  th, td { padding-left: .8rem; }
  .words td:first-child { white-space: normal; overflow-wrap: anywhere; }
}
"""
