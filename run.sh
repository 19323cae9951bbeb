cd /tmp/wt && PYTHONPATH=/tmp/wt/src exec /work/main/.venv/bin/pytest -q -p no:cacheprovider "$@"
