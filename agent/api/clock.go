package api

import (
	"context"
	"time"
)

// Clock is a node's.
type Clock struct {
	Now time.Time `json:"now"`
}

// clockReadings are so many because the quickest says most.
const clockReadings = 5

// ClockOffset is how much the clock of the agent that the client calls is ahead
// of this one, by the quickest of a few calls: it was read in the middle of that,
// give or take half of it. It is 0 where the difference is less than that call took.
func ClockOffset(ctx context.Context, c *Client) (time.Duration, error) {
	var offset, quickest time.Duration
	for i := range clockReadings {
		began := time.Now()
		clock, err := GetClock.Call(ctx, c, None{})
		took := time.Since(began)
		if err != nil {
			return 0, err
		}
		if i == 0 || took < quickest {
			offset, quickest = clock.Now.Sub(began.Add(took/2)), took
		}
	}
	if offset.Abs() <= quickest {
		return 0, nil
	}
	return offset, nil
}
