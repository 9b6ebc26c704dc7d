#!/usr/bin/env python3
"""Compares summary.json of `flanmoe eval --answers` with what score.py found: every task, suite and average, and of each every score, interval, normalised score, measure, category and count.

Both must have the same entries, and figures may differ by 1e-9. Prints how many were compared.
"""
import json, sys

ours, theirs = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:3])
bad = count = 0


def check(where, a, b):
    global bad, count
    count += 1
    if abs(a - b) > 1e-9: bad += 1; print(f"{where}: {a} instead of {b}")


def same_names(where, a, b):
    if set(a) != set(b): sys.exit(f"{where}: {sorted(a)} instead of {sorted(b)}")


def estimate(where, a, b):
    for part in ("value", "low", "high"): check(f"{where} {part}", a[part], b[part])


def entry(where, a, b):
    for name, wanted in b.items():
        if name in ("measures", "categories"):
            same_names(f"{where} {name}", a[name], wanted)
            for part in wanted: estimate(f"{where} {name} {part}", a[name][part], wanted[part])
        elif isinstance(wanted, dict): estimate(f"{where} {name}", a[name], wanted)
        else: check(f"{where} {name}", a[name], wanted)


names = {"tasks": lambda e: f"{e['suite']}/{e['mode']}/{e['task']}", "suites": lambda e: f"{e['suite']}/{e['mode']}", "averages": lambda e: e["name"]}
for kind, name in names.items():
    found = {name(e): e for e in ours[kind]}
    same_names(kind, found, theirs[kind])
    for key, wanted in theirs[kind].items(): entry(f"{kind} {key}", found[key], wanted)
print(f"{count} figures compared")
sys.exit(bad > 0)
