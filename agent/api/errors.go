package api

import (
	"errors"
	"net/http"
)

// Code classes an [Error], so that it can be matched on both sides of the socket.
type Code string

// The classes of error.
const (
	CodeInvalid     Code = "invalid"     // the request makes no sense; repeating it does not help
	CodeUnavailable Code = "unavailable" // the agent cannot do it now; repeating it may help
	CodeInternal    Code = "internal"
)

// Errors to match with errors.Is.
var (
	ErrInvalid     = &Error{Code: CodeInvalid}
	ErrUnavailable = &Error{Code: CodeUnavailable}
)

// Error is what an agent answers when it could not do what was asked.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Is matches any error of the same code, so errors.Is(err, ErrInvalid) holds on both sides.
func (e *Error) Is(target error) bool {
	var other *Error
	return errors.As(target, &other) && other.Code == e.Code && (other.Message == "" || other.Message == e.Message)
}

func (c Code) status() int {
	switch c {
	case CodeInvalid:
		return http.StatusBadRequest
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// WriteError answers a request with an error, as every operation does.
func WriteError(w http.ResponseWriter, err error) { writeError(w, asError(err)) }

func asError(err error) *Error {
	var failure *Error
	if errors.As(err, &failure) {
		return &Error{Code: failure.Code, Message: err.Error()}
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}
