package topic

// LastEpoch returns the latest epoch that a publisher has begun in the topic,
// or 0 when none has.
func (s *Schemas) LastEpoch() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var last uint32
	for _, r := range s.seeds {
		last = max(last, r.Epoch)
	}
	return last
}
