package ladder

import (
	"context"
	"errors"
)

func observe(context.Context, Prober, Probe, []Place) (Ladder, error) {
	return Ladder{}, errors.New("not observed yet")
}
