"""The security page with its proofs: one HTML file, no script, nothing loaded from anywhere; for a screen in light or dark, and for paper."""

from __future__ import annotations

from html import escape
from typing import Final

from axis_security.core.checks import CheckResult, Severity
from axis_security.ops.evidence.controls import CONTROLS
from axis_security.ops.verify.report import Report, Row

__all__ = ["to_html"]

_CSS: Final = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#16202b;--soft:#5a6877;--line:#dfe4ea;--good:#0b6b3a;--good-soft:#e3f4ea;--bad:#a3171f;
--bad-soft:#fdeaea;--mind:#8a5a00;--mind-soft:#fdf3df;--idle:#66707c;--idle-soft:#eceff2;--accent:#1f4f86}
@media (prefers-color-scheme:dark){:root{--paper:#10151b;--card:#181f27;--ink:#e6ebf1;--soft:#9aa8b7;--line:#2b3541;--good:#5fd396;--good-soft:#123322;
--bad:#ff8d8d;--bad-soft:#3b181b;--mind:#f0b95a;--mind-soft:#33270f;--idle:#9aa5b1;--idle-soft:#232c36;--accent:#8ab8ee}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
header h1{margin:0 0 .25rem;font-size:2rem;line-height:1.2;letter-spacing:-.015em}
header p{margin:.25rem 0;color:var(--soft)}
.verdict{display:flex;gap:1.25rem;align-items:center;margin:1.75rem 0;padding:1.1rem 1.35rem;border-radius:.9rem;background:var(--good-soft);color:var(--good)}
.verdict.bad{background:var(--bad-soft);color:var(--bad)}
.verdict strong{font-size:2.1rem;line-height:1;font-variant-numeric:tabular-nums;white-space:nowrap}
.verdict span{font-size:1.02rem}
ol{list-style:none;margin:0;padding:0}
li.promise{background:var(--card);border:1px solid var(--line);border-radius:.9rem;padding:1.1rem 1.35rem;margin:0 0 .8rem;break-inside:avoid}
.head{display:flex;gap:.9rem;align-items:baseline}
.head h2{flex:1;margin:0;font-size:1.06rem;line-height:1.4;font-weight:600}
.number{color:var(--soft);font-variant-numeric:tabular-nums;min-width:1.4rem;text-align:right}
.mark{font-size:.8rem;font-weight:650;padding:.16rem .65rem;border-radius:1rem;white-space:nowrap;background:var(--good-soft);color:var(--good)}
.mark.bad{background:var(--bad-soft);color:var(--bad)}
.mark.idle{background:var(--idle-soft);color:var(--idle)}
.checks{margin:.7rem 0 0 2.3rem;padding:0;list-style:none;font-size:.9rem}
.checks>li{padding:.22rem 0;color:var(--soft);overflow-wrap:anywhere}
.checks code{font:600 .82rem/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:var(--ink)}
.tick{color:var(--good);font-weight:700}.cross{color:var(--bad);font-weight:700}
.finding{margin:.4rem 0 .5rem 1.2rem;padding:.55rem .85rem;border-left:3px solid var(--bad);background:var(--bad-soft);border-radius:.25rem .5rem .5rem .25rem;color:var(--ink)}
.finding.warning{border-color:var(--mind);background:var(--mind-soft)}
.finding p{margin:.1rem 0}.finding .fix{color:var(--soft)}
.controls{margin:.6rem 0 0 2.3rem;font-size:.8rem;color:var(--soft)}
.controls abbr{display:inline-block;margin:.12rem .3rem .12rem 0;padding:.02rem .5rem;border:1px solid var(--line);border-radius:.4rem;text-decoration:none}
footer{margin-top:2.2rem;padding-top:1.1rem;border-top:1px solid var(--line);font-size:.86rem;color:var(--soft)}
@media (max-width:36rem){.checks,.controls{margin-left:0}.head{flex-wrap:wrap}.head h2{flex-basis:75%}.verdict{flex-direction:column;align-items:flex-start;gap:.4rem}}
@media print{:root{color-scheme:light;--paper:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--good:#0b6b3a;--good-soft:#eef7f1;--bad:#a3171f;--bad-soft:#fdf1f1;--mind:#8a5a00;--mind-soft:#fdf8ec;--idle:#555;--idle-soft:#f2f2f2}
body{font-size:10.5pt}main{max-width:none;padding:0}li.promise{border-radius:0;margin-bottom:.4rem}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def to_html(report: Report) -> str:
    """The whole page. Everything from the report is escaped: what a check saw may come from a database."""
    made = [row for row in report.rows if row.declined is None]
    bad = len(made) - report.held
    verdict = f"{report.held} of {len(made)}"
    words = "promises hold, each measured on the running system" if not bad else f"promises hold; {bad} do{'es' if bad == 1 else ''} not"
    when = (
        f"{report.at:%d %B %Y, %H:%M} UTC".lstrip("0")
        if report.at.utcoffset() is not None and not report.at.utcoffset()
        else report.at.isoformat()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(report.product)}: security, measured</title>
<style>{_CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(report.product)}: security, measured</h1>
<p>Measured on <time datetime="{escape(report.at.isoformat())}">{escape(when)}</time> in {report.seconds:.1f} s with axis-security {escape(report.version)}.</p>
</header>
<div class="verdict{" bad" if bad else ""}" role="status"><strong>{verdict}</strong><span>{words}.</span></div>
<ol>
{"".join(_promise(row) for row in report.rows)}</ol>
<footer>
<p>Each line was measured on the running system at the time above: a handshake made, a query sent, a value sealed and opened, a backup looked at. A check that
failed to run counts as not held.</p>
<p>The references to SOC 2 and OWASP ASVS 5.0 name the controls that a measurement supports. No library and no page confers an attestation: that is an
independent auditor's opinion on an organisation.</p>
</footer>
</main>
</body>
</html>
"""


def _promise(row: Row) -> str:
    if row.declined is not None:
        mark, body = '<span class="mark idle">not promised</span>', f'<p class="controls">{escape(row.declined)}</p>'
    else:
        mark = '<span class="mark">holds</span>' if row.ok else '<span class="mark bad">does not hold</span>'
        body = f'<ul class="checks">\n{"".join(_check(check) for check in row.checks)}</ul>\n{_controls(row)}'
    number, text = row.promise.id, escape(row.promise.text)
    return f'<li class="promise" id="p{number}">\n<div class="head"><span class="number">{number}</span><h2>{text}</h2>{mark}</div>\n{body}</li>\n'


def _check(check: CheckResult) -> str:
    tick = (
        '<span class="tick" aria-label="holds">\u2713</span>'
        if check.ok
        else '<span class="cross" aria-label="does not hold">\u2717</span>'
    )
    findings = "".join(
        f'<div class="finding {each.severity}"><p><b>{escape(each.what)}</b>: {escape(each.object)}</p><p>{escape(each.why)}</p>'
        f'<p class="fix">{escape(each.fix)} <code>{escape(each.code)}</code></p></div>\n'
        for each in check.findings
        if each.severity is not Severity.INFO
    )
    return f"<li>{tick} <code>{escape(check.name)}</code> {escape(check.seen)}\n{findings}</li>\n"


def _controls(row: Row) -> str:
    marks = "".join(
        f'<abbr title="{escape(control.title)}">{escape(control.short)}</abbr>'
        for control in CONTROLS
        if row.promise.id in control.promises
    )
    return f'<p class="controls">{marks}</p>\n' if marks else ""
