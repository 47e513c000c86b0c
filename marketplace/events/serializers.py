from rest_framework import serializers


class StreamSerializer(serializers.Serializer):
    """Where a snapshot stands in its topic."""

    topic = serializers.CharField()
    epoch = serializers.CharField()
    seq = serializers.IntegerField()
