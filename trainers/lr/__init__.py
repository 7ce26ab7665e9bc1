"""The learning rate: a range test that raises it every mini-batch, and rules that read a rate off the curve."""
