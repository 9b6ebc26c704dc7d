#!/usr/bin/env python3
"""The page of run/flan_study.sh: tables (Markdown) and figures (SVG) in the order of the FLAN-MoE paper, from whatever cells of the study are there.

Usage: run/flan_study_page.py OUT SIZE "MODELS"     writes OUT/page/README.md and its figures; cells that are missing show as a dash.
Needs: matplotlib. Bars and brackets are 95 % intervals of the questions asked (one seed: they say nothing of how another training would end).
"""
import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "flan-study", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
import matplotlib.pyplot as plt  # noqa: E402

OUT, SIZE, MODELS = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split()
PAGE = OUT / "page"
NAMES = {"dense": "dense T5", "switch": "Switch", "gshard": "GShard", "expert-choice": "expert choice", "st-moe": "ST-MoE"}
COLORS = dict(zip(NAMES, ("#555555", "#d97706", "#0f766e", "#2563eb", "#b91c1c")))
PARTS = {"mmlu-few": "MMLU direct, 5 shots", "bbh-few": "BBH direct, 3 shots", "reasoning": "reasoning CoT, 8 shots", "qa": "QA direct, zero-shot"}
AXIS = MODELS[-1]  # the model that the further axes change
lines = []


def load(path):
    return json.loads(path.read_text()) if path.exists() else None


def metrics(run, kind):
    path = OUT / run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row.get("kind") == kind]


def final_loss(run):
    rows = metrics(run, "validation")
    return rows[-1]["loss"] if rows else None


def suite(run, name):
    """A suite's entry in the summary of an evaluation."""
    summary = load(OUT / run / "eval" / name / "summary.json")
    return summary["suites"][0] if summary else None


def average(run):
    """Mean of the four normalised scores, and its 95 % interval from theirs (independent questions)."""
    parts = [suite(run, name) for name in PARTS]
    if None in parts:
        return None
    scores = [part["normalized"] for part in parts]
    half = sum(((s["high"] - s["low"]) / 2) ** 2 for s in scores) ** 0.5 / len(scores)
    value = statistics.fmean(s["value"] for s in scores)
    return {"value": value, "low": value - half, "high": value + half}


def held_out(run, key):
    summary = load(OUT / run / "eval" / "held-out" / "summary.json")
    return None if summary is None else summary["mean"][key] * (1 if key == "loss" else 100)


def number(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def interval(score):
    return "–" if score is None else f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]"


def part(run, name, key="score"):
    entry = suite(run, name)
    return interval(entry and entry[key])


def table(head, rows):
    lines.extend(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)])
    lines.extend("| " + " | ".join(row) + " |" for row in rows)
    lines.append("")


def text(*paragraphs):
    for paragraph in paragraphs:
        lines.extend([paragraph, ""])


def figure(name, caption, draw, width=6.5, height=3.2):
    """Draws one figure; one without data is left out, and the page says so."""
    canvas, axes = plt.subplots(figsize=(width, height))
    drawn = draw(axes)
    if drawn:
        canvas.tight_layout()
        canvas.savefig(PAGE / f"{name}.svg", metadata={"Date": None})
        text(f"![{caption}]({name}.svg)", f"*{caption}*")
    else:
        text(f"*{caption}: not there yet.*")
    plt.close(canvas)


def bars(axes, groups, series, value):
    """Grouped bars; value(group, series) is a score with its interval, or None."""
    drawn, width = False, 0.8 / len(series)
    for j, (key, label, color) in enumerate(series):
        for i, group in enumerate(groups):
            score = value(group, key)
            if score is None:
                continue
            drawn = True
            error = None if "low" not in score else [[score["value"] - score["low"]], [score["high"] - score["value"]]]
            axes.bar(i + (j - (len(series) - 1) / 2) * width, score["value"], width * 0.92, yerr=error, color=color, capsize=2, ecolor="#222222", error_kw={"linewidth": 0.8}, label=label if i == 0 else None)
    axes.axhline(0, color="#222222", linewidth=0.8)
    if drawn:
        axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=5)
    return drawn


def models():
    text("## 1. The models", "Pretraining loss: span corruption on held-out text, nats a token. Speed of pretraining, median over the run, on whatever else the machine did.")
    dense_speed = None
    rows = []
    for model in MODELS:
        plan = load(OUT / model / "plan.json") or {}
        speeds = [row["tokens_per_second"] for row in metrics(f"{model}/pretrain", "train")]
        speed = statistics.median(speeds) if speeds else None
        dense_speed = speed if model == "dense" else dense_speed
        rows.append([NAMES[model], f"{plan['parameters'] / 1e6:.2f} M" if plan else "–", f"{plan['active_parameters'] / 1e6:.2f} M" if plan else "–",
                     f"{plan['forward_flops_per_token'] / 1e6:.2f} M" if plan else "–", number(final_loss(f"{model}/pretrain"), 3),
                     number(speed, 0), number(speed / dense_speed, 2) if speed and dense_speed else "–"])
    table(["model", "parameters", "active for a token", "forward FLOPs a token", "pretraining loss", "tokens/s", "of dense"], rows)


def main_results():
    text("## 2. Instruction tuning, then held-out tasks", "Score [95 % interval]. Average: the mean of the four scores normalised by guessing (0: guessing, 100: all right), as FLAN-MoE has it. "
         "Where options are given (MMLU, QA, most of BBH) they are scored by likelihood; the other answers are generated.")
    rows = []
    for model in MODELS:
        for stage, label in (("pretrain", "pretrained"), ("instruct", "instruction-tuned")):
            run = f"{model}/{stage}"
            rows.append([NAMES[model], label] + [part(run, name) for name in PARTS] + [interval(average(run))])
    table(["model", "stage"] + list(PARTS.values()) + ["average, normalised"], rows)
    figure("average", "Average of the four normalised scores before and after instruction tuning",
           lambda axes: (axes.set_xticks(range(len(MODELS)), [NAMES[m] for m in MODELS]), axes.set_ylabel("normalised average"),
                         bars(axes, MODELS, (("pretrain", "pretrained", "#9ca3af"), ("instruct", "instruction-tuned", "#2563eb")), lambda m, s: average(f"{m}/{s}")))[-1])
    text("Zero- and few-shot, after instruction tuning:")
    table(["model", "MMLU, zero-shot", "MMLU, 5 shots", "BBH, zero-shot", "BBH, 3 shots"],
          [[NAMES[m]] + [part(f"{m}/instruct", name) for name in ("mmlu-zero", "mmlu-few", "bbh-zero", "bbh-few")] for m in MODELS])
    text("Held-out instructions (official test tasks of Super-Natural-Instructions, zero-shot): loss in nats a token of the answer, scores in per cent.")
    table(["model", "loss, pretrained", "loss, tuned", "ROUGE-L, pretrained", "ROUGE-L, tuned", "exact match, tuned", "always the most frequent answer"],
          [[NAMES[m], number(held_out(f"{m}/pretrain", "loss"), 3), number(held_out(f"{m}/instruct", "loss"), 3), number(held_out(f"{m}/pretrain", "rouge_l")),
            number(held_out(f"{m}/instruct", "rouge_l")), number(held_out(f"{m}/instruct", "exact_match")), number(held_out(f"{m}/instruct", "majority"))] for m in MODELS])


def efficiency():
    text("## 3. Learning over the steps of instruction tuning")

    def draw(axes):
        drawn = False
        for model in MODELS:
            rows = metrics(f"{model}/instruct", "validation")
            if rows:
                drawn = True
                axes.plot([r["step"] for r in rows], [r["loss"] for r in rows], marker="o", markersize=3, color=COLORS[model], label=NAMES[model])
        axes.set_xlabel("step")
        axes.set_ylabel("loss on held-out tasks")
        if drawn:
            axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=5)
        return drawn

    figure("steps", "Loss on the held-out instructions while tuning on the others", draw)


def finetuned(model, task, stage):
    """Test value of the task's metric, in its unit: the split's name where there is no test split."""
    run = OUT / model / f"finetune-{task}-from-{stage}"
    key = "pearson" if task in ("sick", "cxc") else "exact_match"
    measured = load(run / "test.json")
    if measured and key in measured:
        return measured[key]
    best = [row[key] for row in metrics(f"{model}/finetune-{task}-from-{stage}", "validation") if key in row]
    return max(best) if best and task == "rte" else None


def finetuning():
    tasks = sorted({path.name.removeprefix("finetune-").rsplit("-from-", 1)[0] for model in MODELS for path in (OUT / model).glob("finetune-*-from-*") if path.is_dir()})
    labels = {"sick": "SICK (Pearson)", "cxc": "CxC (Pearson)", "condaqa": "CondaQA", "pubmedqa": "PubmedQA", "searchqa": "SearchQA", "rte": "RTE (validation)"}
    text("## 4. Finetuning directly, and after instruction tuning", "Test values of the checkpoint that validation chose: exact match in per cent, or correlation times 100.")
    rows = []
    for model in MODELS:
        for stage, label in (("pretrain", "directly"), ("instruct", "after instruction tuning")):
            values = [finetuned(model, task, stage) for task in tasks]
            mean = statistics.fmean(values) if values and None not in values else None
            rows.append([NAMES[model], label] + [number(None if v is None else 100 * v) for v in values] + [number(None if mean is None else 100 * mean)])
    table(["model", "finetuned"] + [labels.get(t, t) for t in tasks] + ["mean"], rows)

    def gain(model, stage):
        values = [finetuned(model, task, stage) for task in tasks]
        return {"value": 100 * statistics.fmean(values)} if values and None not in values else None

    figure("finetuning", "Mean over the finetuning tasks, directly and after instruction tuning",
           lambda axes: (axes.set_xticks(range(len(MODELS)), [NAMES[m] for m in MODELS]), axes.set_ylabel("mean"),
                         bars(axes, MODELS, (("pretrain", "directly", "#9ca3af"), ("instruct", "after instruction tuning", "#2563eb")), gain))[-1])


def axes_of_the_study():
    text("## 5. Further axes", f"{NAMES[AXIS]}, tuned for fewer steps than above; \"reference\" is the same without a change.")

    def row(cell, label):
        run = f"axes/{cell}/instruct"
        return [label, number(final_loss(run), 3), number(held_out(run, "rouge_l"))] + [part(run, name, "normalized") for name in PARTS] + [interval(average(run))]

    head = ["held-out loss", "held-out ROUGE-L"] + [name.split(",")[0] + ", normalised" for name in PARTS.values()] + ["average"]
    for title, label, cells in (
        ("Number of tasks", "tasks", [("tasks-9", "9"), ("tasks-36", "36"), ("tasks-89", "89"), ("reference", "all")]),
        ("Number of experts", "experts", [("experts-2", "2"), ("reference", "8"), ("experts-16", "16")]),
        ("Freezing", "frozen", [("reference", "nothing"), ("freeze-gate", "gate"), ("freeze-experts", "experts"), ("freeze-moe", "gate and experts"), ("freeze-non_moe", "all but these")]),
        ("Auxiliary losses while tuning", "losses", [("losses-none", "none"), ("losses-balance", "balance"), ("losses-z", "router z"), ("reference", "as pretrained")]),
        ("Expert dropout", "rate", [("expert-dropout-0", "0"), ("expert-dropout-0.1", "0.1"), ("reference", "0.2"), ("expert-dropout-0.4", "0.4")]),
    ):
        text(f"**{title}**")
        table([label] + head, [row(cell, name) for cell, name in cells])

    def draw(axes):
        cells = [("tasks-9", "9"), ("tasks-36", "36"), ("tasks-89", "89"), ("reference", "all")]
        points = [(name, final_loss(f"axes/{cell}/instruct")) for cell, name in cells]
        points = [p for p in points if p[1] is not None]
        axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", color=COLORS[AXIS])
        axes.set_xlabel("tasks tuned on")
        axes.set_ylabel("loss on held-out tasks")
        return len(points) > 1

    figure("tasks", "Loss on the held-out instructions by number of tasks", draw)


def routing():
    text("## 6. Routing", "On the held-out instructions, with the capacity of training: share of slots used, tokens that no expert takes, and the busiest expert's load over the mean, over all sparse layers.")
    rows = []
    for model in MODELS:
        for stage, label in (("pretrain", "pretrained"), ("instruct", "instruction-tuned")):
            trace = load(OUT / model / stage / "eval" / "routing" / "routing.json")
            if trace is None:
                continue
            used, dropped, busiest, tasks = (statistics.fmean(get(layer) for layer in trace["layers"]) for get in (
                lambda layer: layer["utilization"], lambda layer: layer["dropped"]["share"], lambda layer: layer["busiest_over_mean"], lambda layer: layer["information_of_tasks"]["share"]))
            changed = statistics.fmean(layer["wanted"]["share"] for layer in trace["drift"]) if "drift" in trace else None
            rows.append([NAMES[model], label, number(100 * used), number(100 * dropped), number(busiest, 2), number(100 * tasks), number(None if changed is None else 100 * changed)])
    table(["model", "stage", "slots used, %", "tokens dropped, %", "busiest expert / mean", "of an expert's choice, what the task tells, %", "tokens that go elsewhere than before tuning, %"], rows)


PAGE.mkdir(parents=True, exist_ok=True)
text(f"# The FLAN-MoE study in small: size {SIZE}", f"Made by `run/flan_study.sh DATA OUT {SIZE}` and `run/flan_study_page.py`. One seed; brackets and error bars are 95 % intervals over the questions asked.")
for section in (models, main_results, efficiency, finetuning, axes_of_the_study, routing):
    section()
(PAGE / "README.md").write_text("\n".join(lines).rstrip() + "\n")
print(f"{PAGE / 'README.md'}")
