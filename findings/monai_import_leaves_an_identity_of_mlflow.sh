#!/usr/bin/env bash
# Where MLflow is installed, `import monai` alone imports it, and MLflow then writes an identity of this installation into
# the user's home, for the usage statistics that it sends once it is used.
#
# MONAI 1.6.1, MLflow 3.17.2 (mlflow-skinny), torch 2.13.0, outside of CI. MONAI imports all of its modules, these try all
# optional packages, and one of them is MLflow, whatever the program needs of MONAI. On its import MLflow 3 makes the client of
# its usage statistics, which writes ~/.config/mlflow/telemetry.json with a random identity that stays; a first run that is
# logged sends it, with version and operating system, to MLflow's server. Seen: the file is there after `import monai` in an
# empty home, and MLflow takes part of the seconds that each start of MONAI needs (1.2 of 8.7 on a busy machine; shown).
# A good engineer would expect a library of transforms and networks to import a tracker when a run is tracked, and a
# hospital's machine to give itself no identity because it cropped an image. MLFLOW_DISABLE_TELEMETRY=true or
# DO_NOT_TRACK=true, set before Python starts, leaves no file; it is imported all the same.
#
# Runs without our product, on valid input; sends nothing. Exits 0 if all this is still so; times are shown and not judged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet "torch==2.13.0" "monai==1.6.1" "mlflow-skinny==3.17.2" "numpy==2.4.6" 2> /dev/null

cat > "$folder/start.py" << 'EOF'
import sys
import time

started = time.perf_counter()
import monai

seconds = time.perf_counter() - started
print(f"MONAI {monai.__version__}, {seconds:.1f} s; mlflow imported: {'mlflow' in sys.modules}")
assert "mlflow" in sys.modules, "MONAI does not import MLflow any more"
EOF

start() { # an empty home, and no variable by which MLflow takes this for a test
    mkdir -p "$folder/$1"
    env -i PATH="$PATH" HOME="$folder/$1" "${@:2}" "$folder/venv/bin/python" "$folder/start.py" 2> /dev/null
}
start usual
start refused MLFLOW_DISABLE_TELEMETRY=true
identity="$folder/usual/.config/mlflow/telemetry.json"
grep --quiet installation_id "$identity" || { echo "no identity was written"; exit 1; }
sed 's/: "[0-9a-f-]\{36\}"/: "(random)"/' "$identity"
[ ! -e "$folder/refused/.config/mlflow/telemetry.json" ] || { echo "written in spite of the variable"; exit 1; }
echo "as described: import monai makes MLflow write an identity into the home"
