import torch
from torch import nn
from torch.nn.functional import cross_entropy


def data(rows=2000, noise=0.1):
    label = torch.arange(rows) % 2
    radius = 4 * torch.rand(rows).sqrt()
    angle = 2 * radius + torch.pi * label
    xy = torch.stack([radius * angle.cos(), radius * angle.sin()], 1) + noise * torch.randn(rows, 2)
    held_out = rows // 5
    return {"xy": xy[held_out:], "label": label[held_out:]}, {"xy": xy[:held_out], "label": label[:held_out]}


class Net(nn.Module):
    def __init__(self, classes, width, dropout):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, batch):
        logits = self.head(self.body(batch["xy"]))
        right = logits.argmax(1) == batch["label"]
        return {"loss": cross_entropy(logits, batch["label"]), "accuracy": right.float().mean()}

    def layer_groups(self):
        return [self.body, self.head]


def model(data, width=64, dropout=0.1):
    return Net(int(data["label"].max()) + 1, width, dropout)
