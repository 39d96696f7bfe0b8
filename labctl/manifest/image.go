package manifest

import (
	"regexp"

	"github.com/native-routing/labctl/agent/api"
)

// images are those that the lab has a stand-in for.
var images = map[string]api.Program{
	"traefik/whoami":    api.ProgramWhoami,
	"nicolaka/netshoot": api.ProgramTools,
}

// knownImages is what a message says of them.
const knownImages = "the lab has traefik/whoami (a server that answers with its name) and nicolaka/netshoot (the machine's own tools)"

var reference = regexp.MustCompile(`^(?:(?:registry-1\.|index\.)?docker\.io/)?([a-z0-9._/-]+?)(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$`)

// Program is what stands in for an image, whatever its tag or digest, with or
// without Docker Hub's name before it. False for an image that the lab has nothing for.
func Program(image string) (api.Program, bool) {
	found := reference.FindStringSubmatch(image)
	if found == nil {
		return "", false
	}
	program, ok := images[found[1]]
	return program, ok
}
