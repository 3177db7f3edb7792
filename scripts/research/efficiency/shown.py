"""Scores of predictions as tables of text."""

from typing import Any


def show(document: dict[str, Any]) -> None:
    """All of what `validate-predictions` found."""
    show_scores(document)
    print("\nprocessors, by whether the bandwidth of their memory is known")
    for row in document["memory"]:
        name = f"{'known' if row['is_known'] else 'not known'}, {row['test']}"
        print(f"{name:44}{row['n']:6}{'':7}{row['median_error']:9.1%}")
    print("\nv(n) of devices that were left out, n of 2, 4, 8 and 16")
    for row in document["verify"]:
        print(f"{_name(row):44}{row['n']:6}{'':7}{row['median_error']:9.1%}")
    _show_transfer(document["transfer"])
    _show_remainder(document)
    print("\nseveral equal devices beside one of them, by one source")
    for row in document["together"]:
        name = f"{row['n_devices']} devices, {_name(row)}"
        print(f"{name:44}{row['n']:6}{'':7}{row['median_ratio']:8.2f}x")
    print("\nrivals' formulas on the same runs, decoding")
    for row in document["rivals"]:
        print(
            f"{row['backend']:7}{row['formula']:37}{row['n']:6}{'':7}"
            f"{row['median_error']:9.1%}{row['p90_error']:9.1%}"
        )
    print("\nrows that are not predicted")
    for row in document["skipped"]:
        print(f"{row['n']:6}  {row['reason']}")


def show_scores(document: dict[str, Any]) -> None:
    """A table for each grouping that the document has."""
    for title, key in (
        ("by family", "groups"),
        ("by backend", "backends"),
        ("by kind of model", "kinds"),
        ("of builds from 2025 on", "recent"),
    ):
        if key not in document:
            continue
        print(
            f"\n{title}\n{'':44}{'n':>6}{'chips':>7}{'median':>9}{'90th':>9}{'in 80 %':>9}"
            f"{'give or take':>14}{'by pairs':>10}"
            f"{'chip known':>12}"
        )
        for row in document[key]:
            known, beside = row["known_chip_error"], row["coverage80_error"]
            print(
                f"{_name(row):44}{row['n']:6}{row['devices']:7}{row['median_error']:9.1%}"
                f"{row['p90_error']:9.1%}{row['coverage80']:9.0%}"
                f"{'' if beside is None else f'{beside:.0%}':>14}"
                f"{row['coverage80_by_pairs']:10.0%}"
                f"{'' if known is None else f'{known:.1%}':>12}"
            )


def _name(row: dict[str, Any]) -> str:
    return ", ".join(row[part] for part in ("backend", "family", "kind", "test") if part in row)


def _show_transfer(rows: list[dict[str, Any]]) -> None:
    print("\nwith runs of the same source: of the device, and of the model on another, too")
    for row in rows:
        parts = ("n", "median_error", "corrected_error"), (
            "n_elsewhere", "elsewhere_error", "elsewhere_corrected_error",
        )  # fmt: skip
        for n, before, after in parts:
            if row[n]:
                print(f"{row['test']:44}{row[n]:6}{'':7}{row[before]:9.1%}{row[after]:9.1%}")


def _show_remainder(document: dict[str, Any]) -> None:
    """What sources disagree about, and what no cause in the rows takes away."""
    print("\nby what other sources measured of the same file on the same device")
    for row in document["disagreement"]:
        print(f"{_name(row):44}{row['n']:6}{row['devices']:7}{row['median_error']:9.1%}")
    print("\nothers' measurement and the prediction, on runs that several sources made")
    for row in document["beside_others"]:
        print(
            f"{_name(row):44}{row['n']:6}{row['others_error']:9.1%}{row['prediction_error']:9.1%}"
        )
    print("\nof pairs with three runs or more: their common factor, and what is left without it")
    for row in document["factors"]:
        print(f"{_name(row):44}{row['n']:6}{row['median_factor']:9.1%}{row['median_left']:9.1%}")
    print("\nas predicted, and corrected by what the fit left of near runs")
    for row in document["near"]:
        print(f"{_name(row):44}{row['n']:6}{row['median_error']:9.1%}{row['near_error']:9.1%}")
