"""Models of scikit-learn, trained by joblib's worker processes, which stay between rounds."""
import sys

import joblib
import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score


def score(seed):
    x, y = make_classification(1200, 20, random_state=seed)
    return cross_val_score(LogisticRegression(max_iter=400), x, y).mean()


if __name__ == "__main__":
    for step in range(int(sys.argv[1])):
        x, y = make_classification(1000, 20, n_informative=8, random_state=step)
        forest = RandomForestClassifier(40, n_jobs=2, random_state=step).fit(x, y)
        grid = GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.01, 0.1, 1, 10]}, n_jobs=2).fit(x, y)
        scores = joblib.Parallel(n_jobs=2)(joblib.delayed(score)(10 * step + i) for i in range(6))
        print(step, round(forest.score(x, y), 6), grid.best_params_, np.round(scores, 9).tolist(), flush=True)
