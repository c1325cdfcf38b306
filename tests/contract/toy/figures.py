"""The line's figures."""

from matplotlib import pyplot as plt
from papers.toy.data import load


def loss(records, data):
    figure, axes = plt.subplots()
    for record in records:
        axes.plot(record.curves["loss"])
    return figure


def points(records, data):
    clouds = data("clouds")
    if clouds is None:
        return None
    figure, axes = plt.subplots()
    axes.scatter(*load(clouds).train_points.T)
    return figure


FIGURES = {"loss": loss, "points": points}
