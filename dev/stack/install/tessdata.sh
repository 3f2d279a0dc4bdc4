#!/bin/sh
# Unpacks the language data of Tesseract into var/tessdata. Nothing on the machine changes.
set -eu

# Orientation and script; Latin script in four languages, and one language of each other script.
languages="osd eng deu fra spa heb ara jpn chi-sim"

missing=
for language in $languages; do
    name=$(echo "$language" | tr - _)
    [ -s "var/tessdata/$name.traineddata" ] || missing="$missing tesseract-ocr-$language"
done
[ -z "$missing" ] && exit 0

# Without OCR everything else works, and the readiness of the gateway says that there is none.
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "No OCR: put eng.traineddata and osd.traineddata of Tesseract 4 or 5 into var/tessdata." >&2
    exit 0
fi

echo "unpacking language data of Tesseract"
mkdir -p var/log var/tessdata
rm -rf var/tessdata-packages
mkdir var/tessdata-packages

# shellcheck disable=SC2086  # a list of packages
download() { (cd var/tessdata-packages && apt-get download $missing); }
# A new machine has no lists of packages, an old one may have outdated lists; only root updates them.
if ! { download || { [ "$(id -u)" -eq 0 ] && apt-get update && download; }; } \
    >var/log/tessdata-install.log 2>&1; then
    cat var/log/tessdata-install.log >&2
    echo "No OCR: the language data cannot be downloaded. As root: apt-get update" >&2
    exit 0
fi
for package in var/tessdata-packages/*.deb; do
    dpkg --extract "$package" var/tessdata-packages/unpacked
done
# A new name appears only with the complete file.
find var/tessdata-packages/unpacked -name '*.traineddata' -exec mv {} var/tessdata/ \;
rm -rf var/tessdata-packages
