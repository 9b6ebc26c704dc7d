#!/usr/bin/env python3
"""What Jinja gives for the cases of templates, to compare with: needs Python 3 with jinja2 (3.1.6 was used), and PyYAML for the second form.

jinja.py cases.jsonl                 writes the file again with what Jinja gives; "refused" (no value: Jinja refuses, too) and the first line, the record, stay.
jinja.py promptsource FOLDER FLANMOE renders every prompt of promptsource's files under FOLDER with records made up to fit it, by Jinja and by
                                     `flanmoe data tasks`, and says where the two differ.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

import jinja2
import jinja2.meta


def rendered(text, record, undefined=jinja2.Undefined):
    environment = jinja2.Environment(undefined=undefined)
    return environment.from_string(text).render(**record, zip=zip)


def cases(path):
    with open(path, encoding="utf-8") as file:
        record, *lines = [json.loads(line) for line in file]
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        for line in lines:
            try:
                text = rendered(line["text"], record)
            except Exception as error:  # whatever Jinja or Python raises
                if "refused" not in line:
                    print("Jinja refuses", line["text"], error)
                text = None
            line = {"text": line["text"], **({"expected": text} if "refused" not in line else {"refused": line["refused"]})}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


WORDS = "the old mill by a river Where did Ann go? yes no it's 3.5 café Été".split()


def made_up(names, rng):
    """Values for the names of a template: texts, numbers, lists, objects of lists, of the names that its files have."""
    def text():
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))

    def value(depth=0):
        kind = rng.randint(0, 9 if depth == 0 else 3)
        if kind <= 3:
            return text()
        if kind <= 5:
            return rng.randint(0, 2)
        if kind == 6:
            return rng.random() * 5
        if kind == 7:
            return [text() for _ in range(3)]
        return {"text": [text() for _ in range(3)], "label": ["A", "B", "C"], "answer_start": [1, 2, 3]}
    return {name: value() for name in sorted(names)}


def promptsource(folder, flanmoe):
    import yaml

    class Loader(yaml.SafeLoader):
        pass
    Loader.add_multi_constructor("!", lambda loader, suffix, node: loader.construct_mapping(node, deep=True))
    rng, compared, unfit, differ, refused = random.Random(5), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as work:
        for path in sorted(os.path.join(root, f) for root, _, files in os.walk(folder) for f in files if f == "templates.yaml"):
            for prompt in yaml.load(open(path, encoding="utf-8"), Loader)["templates"].values():
                text, choices = prompt["jinja"], prompt.get("answer_choices") or ""
                if "choice" in text.replace("answer_choices", "") and "| choice" in text.replace("|choice", "| choice"):
                    continue  # a random draw
                environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
                environment.globals["zip"] = zip
                names = jinja2.meta.find_undeclared_variables(environment.parse(text + choices)) - {"answer_choices", "zip"}
                fits = []
                for _ in range(400):
                    record = made_up(names, rng)
                    try:
                        options = [o.strip() for o in environment.from_string(choices).render(**record).split("|||")] if choices else []
                        parts = [p.strip() for p in environment.from_string(text).render(**record, answer_choices=options).split("|||")]
                    except Exception:
                        continue
                    if len(parts) > 1 and parts[0] and parts[1] and "[" not in parts[0] + parts[1] and "{" not in parts[0] + parts[1]:
                        fits.append((record, parts[0], parts[1]))
                    if len(fits) == 3:
                        break
                if not fits:
                    unfit += 1
                    continue
                with open(os.path.join(work, "records.jsonl"), "w", encoding="utf-8") as file:
                    for record, _, _ in fits:
                        file.write(json.dumps(record) + "\n")
                with open(os.path.join(work, "task.toml"), "w", encoding="utf-8") as file:
                    file.write('name = "x"\nreader = "jsonl"\nunique = ""\nprompts = %s\nprompt_names = [%s]\n[files]\ntrain = "records.jsonl"\n'
                               % (json.dumps(os.path.abspath(path)), json.dumps(prompt["name"])))
                run = subprocess.run([flanmoe, "data", "tasks", os.path.join(work, "task.toml"), "--data", work, "--jsonl", "--count", "3"], capture_output=True, text=True)
                ours = [json.loads(line) for line in run.stdout.splitlines()]
                for i, (record, inputs, targets) in enumerate(fits):
                    compared += 1
                    if i >= len(ours):  # a value of another kind than the template is for: refused, with those behind it
                        refused += 1
                        print(path, prompt["name"], record, run.stderr, sep="\n  ")
                    elif ours[i]["inputs"] != inputs or ours[i]["targets"] != [targets]:
                        differ += 1
                        print(path, prompt["name"], record, [inputs, targets], ours[i], sep="\n  ")
    print(f"{compared} renderings compared, {differ} differ, {refused} are refused; {unfit} prompts for which no record was found")


if sys.argv[1] == "promptsource":
    promptsource(sys.argv[2], os.path.abspath(sys.argv[3]))
else:
    cases(sys.argv[1])
