#!/usr/bin/env python3
"""Scores answers to prompts that `flanmoe eval --prompts` wrote, independently of the program: prompts file, answers file, measure (as --score) -> JSON of scores.

With --mixed PROMPTS [N] it writes answers instead: right ones in many wordings, wrong, malformed, empty ones, in turn, from the N-th on; with --perfect right ones only;
with --chance [N] options in turn, from the N-th on.
Only the standard library; the rules are written anew from their description in src/eval/answers.hpp.
"""
import json, math, re, string, sys
from collections import OrderedDict, Counter

Z = 1.959963984540054


def fold(text):
    text = text.strip()
    if text.startswith("- "): text = text[2:].strip()
    if text.endswith("."): text = text[:-1].strip()
    if len(text) > 1 and text[0] == text[-1] == '"': text = text[1:-1].strip()
    return re.sub(r"\s+", " ", text.lower())


def behind(output):
    found = list(re.finditer(r"answer is", output, re.I))
    if not found: return None
    rest = output[found[-1].end():].strip()
    return rest[1:].strip() if rest.startswith(":") else rest


def first_line(text): return text.strip().split("\n")[0].strip()


def line_of(output):
    rest = behind(output)
    return first_line(output if rest is None else rest)


def letter(output, choices):
    known = string.ascii_uppercase[:len(choices)]
    by_text = lambda text: next((known[i] for i, c in enumerate(choices) if fold(c) == fold(text)), "")
    marked = re.compile(r"\(([%s%s])\)|(?<![\w'])([%s])(?![\w'])" % (known, known.lower(), known))
    rest = behind(output)
    if rest is not None:
        if by_text(first_line(rest)): return by_text(first_line(rest))
        m = marked.search(rest)
        return (m.group(1) or m.group(2)).upper() if m else ""
    text = output.strip()
    m = re.match(r"([%s])($|[).:,\n])" % known, text)
    if m: return m.group(1)
    m = re.search(r"\(([%s%s])\)" % (known, known.lower()), text)
    return m.group(1).upper() if m else by_text(first_line(text))


NUMBER = re.compile(r"(?:(?<![\w'])(-)\$?)?(\d(?:\d|,(?=\d{3}(?!\d)))*(?:\.\d+)?|\.\d+)")


def numbers(text):
    text = "".join("-" if c == "\u2212" else str(int(c)) if c.isdigit() and c.isdecimal() else c for c in text)
    result = []
    for m in NUMBER.finditer(text):
        whole, _, part = m.group(2).replace(",", "").partition(".")
        value = (whole.lstrip("0") or "0") + ("." + part.rstrip("0") if part.rstrip("0") else "")
        result.append(("-" if m.group(1) and value != "0" else "") + value)
    return result


def number(output):
    rest = behind(output)
    if rest is not None and numbers(rest): return numbers(rest)[0]
    return numbers(output)[-1] if numbers(output) else ""


def yes_no(output):
    names = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
    rest = behind(output)
    words = re.findall(r"[\w']+", (output if rest is None else rest).lower())
    if rest is not None: return next((names[w] for w in words if w in names), "")
    if words and words[0] in names: return names[words[0]]
    return ([names[w] for w in words if w in names] or [""])[-1]


def option(output, choices):
    line = line_of(output)
    for c in choices:
        if fold(c) == fold(line): return c
    m = re.match(r"\(([A-Za-z])\)", line)
    return choices[ord(m.group(1).upper()) - 65] if m and ord(m.group(1).upper()) - 65 < len(choices) else ""


def extract(prompt, output):
    if prompt["stop"]:
        lead = len(output) - len(output.lstrip())
        output = output[:lead] + output[lead:].split(prompt["stop"])[0]
    rule = prompt["rule"]
    if rule == "letter": return letter(output, prompt["choices"])
    if rule == "number": return number(output)
    if rule == "yes_no": return yes_no(output)
    if rule == "option": return option(output, prompt["choices"])
    return fold(line_of(output)) if rule == "text" else line_of(output)


def canonical(prompt, answer):
    rule = prompt["rule"]
    if rule == "letter": return answer.strip("()").upper()
    if rule == "number": return numbers(answer)[0]
    return fold(answer) if rule == "text" else answer


def squad(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(guess, target):
    guess, target = squad(guess), squad(target)
    both = sum((Counter(guess) & Counter(target)).values())
    return 2 * both / (len(guess) + len(target)) if both else float(not guess and not target)


def judge(prompt, answer):
    values, found = {}, extract(prompt, answer["output"])
    if prompt["rule"] == "span":
        values["generation"] = float(any(squad(found) == squad(a) for a in prompt["answers"]))
        values["f1"] = max(f1(found, a) for a in prompt["answers"])
    else:
        values["generation"] = float(found != "" and found in [canonical(prompt, a) for a in prompt["answers"]])
    if "option_log_p" in answer:
        log_p, options = answer["option_log_p"], prompt["options"]
        for name, sizes in (("likelihood", [1] * len(options)), ("per_token", answer["option_tokens"]), ("per_byte", [len(o.encode()) for o in options])):
            per = [p / n for p, n in zip(log_p, sizes)]
            values[name] = float(options[per.index(max(per))] in prompt["answers"])
    return values


def plain(values):
    """Mean and its variance."""
    n, mean = len(values), sum(values) / len(values)
    return mean, max(0.0, sum(x * x for x in values) / n - mean * mean) / n


def around(mean, variance):
    half = Z * math.sqrt(variance)
    return {"value": 100 * mean, "low": 100 * (mean - half), "high": 100 * (mean + half), "variance": variance}


def of_task(values, share):
    """Estimate in percent: Wilson's interval of a share, else the normal one."""
    mean, variance = plain(values)
    if not share: return around(mean, variance)
    n = len(values)
    half = Z * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
    return {"value": 100 * mean, "low": 100 * (centre - half), "high": 100 * (centre + half), "variance": variance}


def mean_of(parts):
    """Of independent estimates."""
    if len(parts) == 1: return parts[0]
    return around(sum(p["value"] for p in parts) / 100 / len(parts), sum(p["variance"] for p in parts) / len(parts) ** 2)


def over_chance(estimate, r):
    scaled = {k: 100 * (estimate[k] - 100 * r) / (100 - 100 * r) for k in ("value", "low", "high")}
    return dict(scaled, variance=estimate["variance"] / (1 - r) ** 2)


AVERAGES = {"flan-moe": ("mmlu/direct", "bbh/direct", "reasoning/cot", "qa/direct"), "flan-palm": ("mmlu/direct", "mmlu/cot", "bbh/direct", "bbh/cot", "tydiqa/direct", "mgsm/cot")}


def score(prompts, answers, measure="generation"):
    groups = OrderedDict()
    for p in prompts: groups.setdefault((p["suite"], p["task"], p["mode"]), []).append(p)
    tasks, result = [], {"tasks": {}, "suites": {}, "averages": {}}
    for (suite, task, mode), items in groups.items():
        judged = [judge(i, answers[i["id"]]) for i in items]
        written = "f1" if items[0]["metric"] == "f1" else "generation"
        main = measure if all(i["options"] for i in items) and measure != "generation" else written
        measures = {name: of_task([j[name] for j in judged], name != "f1") for name in judged[0] if all(name in j for j in judged)}
        r = sum(1 / len(i["choices"]) if i["choices"] else 0 for i in items) / len(items)
        entry = {"score": measures[main], "normalized": over_chance(measures[main], r), "chance": 100 * r, "measures": measures, "items": len(items)}
        result["tasks"]["/".join((suite, mode, task))] = entry
        tasks.append((suite + "/" + mode, items[0]["category"], items[0]["counted"], entry))
    for key in OrderedDict((t[0], None) for t in tasks):
        mine = [t for t in tasks if t[0] == key and t[2]] or [t for t in tasks if t[0] == key]
        categories = OrderedDict()
        for t in mine: categories.setdefault(t[1], []).append(t[3]["score"])
        categories = {name: mean_of(scores) for name, scores in categories.items()}
        common = [name for name in mine[0][3]["measures"] if all(name in t[3]["measures"] for t in mine)]
        result["suites"][key] = {"score": mean_of([t[3]["score"] for t in mine]), "normalized": mean_of([t[3]["normalized"] for t in mine]), "items": sum(t[3]["items"] for t in mine),
                                 "measures": {name: mean_of([t[3]["measures"][name] for t in mine]) for name in common},
                                 "categories": categories, "mean_over_categories": mean_of(list(categories.values()))}
    for name, parts in AVERAGES.items():
        if all(part in result["suites"] for part in parts): result["averages"][name] = {"score": mean_of([result["suites"][part]["normalized"] for part in parts])}
    return result


def wordings(p, right, wrong, i):
    cot = p["mode"] == "cot"
    yes = [f"{right}", f" {right}.", f"So the answer is {right}.", f"the ANSWER IS: {right}", f"Let us see.\nTwo steps, 3 and 4.\nThe answer is {right}.\n\nQ: More?\nA: The answer is {wrong}.",
           f"The answer is {wrong}. No: the answer is {right}.", f"\n {right}\n"]
    no = [wrong, f"The answer is {wrong}.", "", "   ", "???", "I do not know\u2026", "\ud835\udfd9 \u2603 \U0001f600", "The answer is", "the answer is not clear", "\u7b54\u3048\u306f\u5206\u304b\u308a\u307e\u305b\u3093", "\n\n" + wrong]
    if p["rule"] == "letter":
        k = right.strip("()")
        text = p["choices"][ord(k) - 65]
        yes += [f"({k})", f"{k}.", f"{k}) {text}", f"({k.lower()}) {text}", f"The answer is ({k}).", f"The answer is {k}", f"the answer is ({k}) {text}.", text, f"The answer is {text}.", f"I think ({k}) is right."]
        no += ["A dog barks", "Both", "E", "(Z)", f"x{k}y", f"{k}'s"]
    if p["rule"] == "number":
        v = right.replace(",", "")
        big = f"{int(v):,}" if re.fullmatch(r"-?\d+", v) else v
        yes += [f"The answer is {v}, not 7.", f"The answer is ${v}.", f"It is {v} apples", f"The answer is {big} km.", f"1 + 1 = 2, then {v}.00" if "." not in v else f"so {v}0", v.translate({48 + d: 0x9e6 + d for d in range(10)}),
                v.translate({48 + d: 0xff10 + d for d in range(10)}), v.replace("-", "\u2212")]
        no += [f"{v}1", f"The answer is {v}7 or so", "seven", "1,23,4", "5-3", "The answer is -"]
    if p["rule"] == "yes_no":
        yes += [right.capitalize() + ", it is.", {"yes": "True", "no": "FALSE"}[right], f"It may be {wrong}, but {right}"]
        no += ["nobody knows", "yesterday", f"{right}, or rather the answer is {wrong}"]
    if p["rule"] == "option":
        yes += [f"- {right}", right.upper(), f'"{right}"', "(%s) %s" % (string.ascii_lowercase[p["choices"].index(right)], right)]
        no += [right + " or so", "(z)"]
    if p["rule"] == "span": no += [right + " indeed", "the " + wrong]
    pool = yes if i % 5 in (0, 2, 3) else no
    return pool[(i // 5 * 2 + i) % len(pool)]


def other(p):
    right = p["answers"][0]
    if p["rule"] == "letter":
        k = "B" if right.strip("()") == "A" else "A"
        return f"({k})" if right.startswith("(") else k
    if p["rule"] == "number": return "987654"
    return next((c for c in p["choices"] if c != right), "gremlin")


def write_answers(kind, prompts, first=0):
    for i, p in enumerate(prompts, first):
        options = p["choices"]
        if kind == "--perfect": out = p["answers"][0]
        elif kind == "--chance": out = (f"({string.ascii_uppercase[i % len(options)]})" if p["rule"] == "letter" else options[i % len(options)]) if options else "nothing"
        else: out = wordings(p, p["answers"][0], other(p), i)
        answer = {"id": p["id"], "output": out}
        if p["options"] and kind == "--mixed":
            answer["option_log_p"] = [-(((i + 3) * (k + 7) * 31) % 17) / 4 - 0.5 for k in range(len(p["options"]))]
            answer["option_tokens"] = [1 + (i + k) % 3 for k in range(len(p["options"]))]
        print(json.dumps(answer))


def read(path):
    with open(path, encoding="utf-8") as lines: return [json.loads(line) for line in lines]


if __name__ == "__main__":
    if sys.argv[1].startswith("--"): write_answers(sys.argv[1], read(sys.argv[2]), *map(int, sys.argv[3:]))
    else: print(json.dumps(score(read(sys.argv[1]), {a["id"]: a for a in read(sys.argv[2])}, *sys.argv[3:]), indent=1))
