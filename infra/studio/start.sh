#!/bin/bash
# Makes `monai-aws` and the notebooks ready before JupyterLab starts in a space of SageMaker Studio. It runs at every
# start as the space's user, within Studio's limit of five minutes; the home folder keeps what it installed.
# Its output is in log group /aws/sagemaker/studio, stream <domain>/<space>/JupyterLab/default/LifecycleConfigOnStart.
# The names between @ are replaced at synthesis (infra/studio/lifecycle.py).
set -eu

bucket='@BUCKET@'
key='@KEY@'
region='@REGION@'
environment='@ENVIRONMENT@'
version='@VERSION@'
wanted='@PYTHON@'
kernel='@KERNEL@'

home="${HOME:-/home/sagemaker-user}"
base="$home/.monai-aws"
toolkit="$base/versions/$version"

say() {
    echo "monai-aws: $*"
}

python="$(command -v python3)"
found="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
if [ "$found" != "$wanted" ]; then
    say "the toolkit is for Python $wanted, and this image has $found. Choose image SageMaker Distribution 3 or 4."
    exit 1
fi

if [ -f "$toolkit/complete" ]; then
    say "version $version is installed"
else
    say "installing version $version into $toolkit"
    rm -rf "$toolkit"
    mkdir -p "$toolkit"
    aws s3 cp "s3://$bucket/$key" "$toolkit/toolkit.zip" --region "$region" --only-show-errors
    "$python" -m zipfile -e "$toolkit/toolkit.zip" "$toolkit"
    rm "$toolkit/toolkit.zip"
    # An environment of its own: Studio's extensions keep the versions that they were tested with.
    "$python" -m venv --without-pip "$toolkit/venv"
    # From the wheels that came along and nowhere else, whatever the image's own configuration of pip says.
    PIP_CONFIG_FILE=/dev/null "$python" -m pip --isolated --python "$toolkit/venv/bin/python" install \
        --quiet --disable-pip-version-check --no-input --no-compile \
        --no-index --find-links "$toolkit/wheels" --requirement "$toolkit/requirements.txt"
    packages="$("$toolkit/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    echo "$toolkit/source" > "$packages/monai-aws.pth"
    rm -rf "$toolkit/wheels"
    # A copy is what one edits: this folder goes when the next version comes.
    chmod a-w "$toolkit"/source/notebooks/*.ipynb
    touch "$toolkit/complete"
    say "installed"
fi

mkdir -p "$base/bin"
cat > "$base/bin/monai-aws" <<END
#!/bin/sh
exec '$toolkit/venv/bin/python' -P -m workbench "\$@"
END
chmod +x "$base/bin/monai-aws"

cat > "$base/environment.sh" <<END
export MONAI_ENV='$environment'
case ":\$PATH:" in
    *':$base/bin:'*) ;;
    *) export PATH='$base/bin':"\$PATH" ;;
esac
END

# Terminals are login shells in some images and not in others. Of the login files bash reads the first that exists.
login="$home/.profile"
for file in "$home/.bash_login" "$home/.bash_profile"; do
    if [ -f "$file" ]; then
        login="$file"
    fi
done
for file in "$home/.bashrc" "$login"; do
    if ! grep -qsF "$base/environment.sh" "$file"; then
        echo ". '$base/environment.sh'" >> "$file"
    fi
done

mkdir -p "$home/.local/share/jupyter/kernels/$kernel"
cat > "$home/.local/share/jupyter/kernels/$kernel/kernel.json" <<END
{
  "display_name": "MONAI on AWS",
  "language": "python",
  "argv": ["$toolkit/venv/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
  "env": {"MONAI_ENV": "$environment", "PATH": "$base/bin:\${PATH}"}
}
END

notebooks="$home/monai-aws-notebooks"
if [ -e "$notebooks" ] && [ ! -L "$notebooks" ]; then
    say "$notebooks is there already and is left as it is; the notebooks are in $toolkit/source/notebooks"
else
    ln -sfn "$toolkit/source/notebooks" "$notebooks"
fi

for other in "$base"/versions/*; do
    if [ "$other" != "$toolkit" ]; then
        say "removing ${other##*/}"
        rm -rf "$other"
    fi
done

say "ready: monai-aws in a terminal, kernel 'MONAI on AWS', notebooks in $notebooks, environment $environment"
