from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "marketplace.training"
    label = "training"
