.PHONY: check format test

check:
	ruff check .
	ruff format --check .
	basedpyright
	codespell -L caf,notin --skip "*.json,LICENSE,*.model,*.min.js,licenses" configs data_pipeline glm launch train tests docs benchmarks README.md CONTRIBUTING.md CHANGELOG.md

format:
	ruff check --fix .
	ruff format .

test:
	pytest --durations=10
