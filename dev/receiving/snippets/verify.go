package webhooks

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const toleranceSeconds = 5 * 60

// IsAuthentic checks a signature with whsec_… (v1) or whpk_… (v1a) over the bytes of the body.
func IsAuthentic(key string, headers http.Header, body []byte) bool {
	timestamp := headers.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || math.Abs(float64(time.Now().Unix()-seconds)) > toleranceSeconds {
		return false
	}
	content := append([]byte(headers.Get("webhook-id")+"."+timestamp+"."), body...)
	for _, each := range strings.Split(headers.Get("webhook-signature"), " ") {
		version, encoded, _ := strings.Cut(each, ",")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if err == nil && matches(key, version, signature, content) {
			return true
		}
	}
	return false
}

func matches(key, version string, signature, content []byte) bool {
	_, encoded, _ := strings.Cut(key, "_")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return false
	}
	switch {
	case version == "v1" && strings.HasPrefix(key, "whsec_"):
		mac := hmac.New(sha256.New, raw)
		mac.Write(content)
		return hmac.Equal(signature, mac.Sum(nil))
	case version == "v1a" && strings.HasPrefix(key, "whpk_") && len(raw) == ed25519.PublicKeySize:
		return ed25519.Verify(raw, content, signature)
	}
	return false
}
