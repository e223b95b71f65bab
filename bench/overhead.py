from harness import Skip
def run(bench):
	raise Skip("x")
